"""Noise schedules of diffusers' schedulers in one form: x_t = α·x0 + σ·ε, and any prediction as ε̂."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridclf.errors import UnknownSpecError

__all__ = ["Schedule", "diffusion_schedule", "flow_schedule"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Schedule:
    """The T noise levels a model was trained on, clean to noise.

    Attributes
    ----------
    alpha, sigma : Tensor `[T]`
        x_t = α·x0 + σ·ε, float32.
    timestep : Tensor `[T]`
        What the network is told the time is.
    prediction : "epsilon", "v_prediction", "sample" or "flow"
        What the network answers in.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    prediction: str

    def to(self, device: torch.device) -> "Schedule":
        """The same on a device."""
        return Schedule(self.alpha.to(device), self.sigma.to(device), self.timestep.to(device), self.prediction)

    def index(self, t: Tensor) -> Tensor:
        """Number `[R]` in 0 … T-1 of the level at times t in (0, 1): ⌊t·T⌋, clipped; float32's rounding aside."""
        n_levels = len(self.alpha)
        return (t.float() * n_levels + 1e-7 * n_levels).long().clamp(0, n_levels - 1)

    def noise(self, output: Tensor, x_t: Tensor, index: Tensor) -> Tensor:
        """ε̂ `[P, …]` from the network's output `[P, …]` for x_t `[P, …]` at levels `[P]`; in float32 if converted."""
        if self.prediction == "epsilon":
            return output
        across = (-1,) + (1,) * (x_t.ndim - 1)
        alpha, sigma = self.alpha[index].view(across), self.sigma[index].view(across)
        if self.prediction == "v_prediction":  # v = α·ε − σ·x0, Appendix D of arXiv 2202.00512
            return alpha * output + sigma * x_t
        if self.prediction == "sample":
            return (x_t - alpha * output) / sigma
        return x_t + alpha * output  # flow: v = ε − x0 and x_t = (1 − σ)·x0 + σ·ε, arXiv 2403.03206

    def before(self) -> tuple[Tensor, Tensor]:
        """α and σ `[T]` of the level before each; (1, 0) before the first."""
        one, zero = torch.ones_like(self.alpha[:1]), torch.zeros_like(self.sigma[:1])
        return torch.cat([one, self.alpha[:-1]]), torch.cat([zero, self.sigma[:-1]])

    def log_variance_bounds(self) -> tuple[Tensor, Tensor]:
        """log β̃_t and log β_t `[T]`, between which a learned variance of p(x_{t-1} | x_t) lies: arXiv 2102.09672.

        β̃ is 0 at the first level; the second one's stands in for it, as in that paper's code.
        """
        alpha, sigma = self.before()
        beta = self.sigma.square() - (self.alpha / alpha * sigma).square()
        posterior = (sigma / self.sigma).square() * beta
        return torch.cat([posterior[1:2], posterior[1:]]).log(), beta.log()


def diffusion_schedule(scheduler: Any) -> Schedule:
    """Of any scheduler with the ᾱ_t of DDPM: α = √ᾱ, σ = √(1 − ᾱ).

    Raises
    ------
    UnknownSpecError
        For a scheduler of another kind, or one whose model predicts something else than ε, v or x0.
    """
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if alphas_cumprod is None or prediction not in PREDICTIONS:
        raise UnknownSpecError(
            f"a {type(scheduler).__name__} with prediction_type {prediction!r} is not supported; supported are "
            f"schedulers with alphas_cumprod, such as DDIMScheduler, and prediction_type {' or '.join(PREDICTIONS)}"
        )
    alphas_cumprod = alphas_cumprod.float()
    return Schedule(alphas_cumprod**0.5, (1 - alphas_cumprod) ** 0.5, torch.arange(len(alphas_cumprod)), prediction)


def flow_schedule(scheduler: Any, n_tokens: int) -> Schedule:
    """Of a flow-matching scheduler: α = 1 − σ, shifted as the model was trained.

    Parameters
    ----------
    scheduler : FlowMatchEulerDiscreteScheduler
        Whose config says by how much.
    n_tokens : int
        Image tokens of the transformer, on which a dynamic shift depends.

    Raises
    ------
    UnknownSpecError
        For a scheduler of another kind.
    """
    if not hasattr(scheduler, "scale_noise"):
        raise UnknownSpecError(
            f"a {type(scheduler).__name__} is not supported here; a flow-matching model needs a "
            "FlowMatchEulerDiscreteScheduler"
        )
    scheduler = type(scheduler).from_config(scheduler.config)  # as trained, whatever steps were set on the given one
    config, n_levels = scheduler.config, scheduler.config.num_train_timesteps
    if config.use_dynamic_shifting:
        spread = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        mu = config.base_shift + (n_tokens - config.base_image_seq_len) * spread
        scheduler.set_timesteps(n_levels, mu=mu)
    sigma = scheduler.sigmas[:n_levels].float().flip(0)
    return Schedule(1 - sigma, sigma, sigma * n_levels, "flow")
