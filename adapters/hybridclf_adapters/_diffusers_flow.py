"""Flow-matching families of diffusers pipelines on plain latents, as denoisers.

A flow predicts the velocity v = ε − x0 of x_t = (1 − σ)·x0 + σ·ε. Families differ in its sign and in the time that
their network is told.
"""

from hybridclf.denoising.weighting import velocity_weights

from ._diffusers_base import TextDenoiser
from ._diffusers_schedule import Schedule, flow_schedule, linear_shift

__all__ = ["FlowDenoiser"]


class FlowDenoiser(TextDenoiser):
    """Denoiser of a flow-matching model conditioned on text; errors are weighted as those of its velocity."""

    weighting = staticmethod(velocity_weights)

    @property
    def n_tokens(self) -> int:
        """Number of the transformer's tokens for an image."""
        return (self.shape[1] // self.patch) ** 2

    def _shift(self) -> float:
        """Dynamic shift of the noise levels for images of this resolution."""
        return linear_shift(self.pipe.scheduler.config, self.n_tokens)

    def _schedule(self) -> Schedule:
        return flow_schedule(self.pipe.scheduler, self._shift())
