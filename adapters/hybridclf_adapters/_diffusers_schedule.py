"""Noise schedules of diffusers' schedulers in one form, x_t = α·x0 + σ·ε, with every prediction converted to ε̂."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridclf.errors import UnknownSpecError

__all__ = ["Schedule", "diffusion_schedule", "flow_schedule", "linear_shift"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Schedule:
    """Schedule of the T noise levels a model was trained on, from clean to noise.

    Attributes
    ----------
    alpha, sigma : Tensor `[T]`
        Noise levels of x_t = α·x0 + σ·ε, float32.
    timestep : Tensor `[T]`
        Network's input for the time.
    prediction : "epsilon", "v_prediction", "sample" or "flow"
        Kind of the network's prediction.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    prediction: str

    def to(self, device: torch.device) -> "Schedule":
        """Move the schedule to a device."""
        return Schedule(self.alpha.to(device), self.sigma.to(device), self.timestep.to(device), self.prediction)

    def index(self, t: Tensor) -> Tensor:
        """Index `[R]`, 0 … T-1, of the level at times t in (0, 1): ⌊t·T⌋, clipped."""
        n_levels = len(self.alpha)
        # the small term keeps ⌊(i/T)·T⌋ = i where float32 rounds i/T down
        return (t.float() * n_levels + 1e-7 * n_levels).long().clamp(0, n_levels - 1)

    def noise(self, output: Tensor, x_t: Tensor, index: Tensor) -> Tensor:
        """Convert the network's output for x_t at levels `index` `[P]` to ε̂; all `[P, …]`."""
        if self.prediction == "epsilon":
            return output
        # levels are float32, and so is a converted ε̂: in half precision α·x0 and x_t would cancel digits
        across = (-1,) + (1,) * (x_t.ndim - 1)
        alpha, sigma = self.alpha[index].view(across), self.sigma[index].view(across)
        if self.prediction == "v_prediction":  # v = α·ε − σ·x0, Appendix D of arXiv 2202.00512
            return alpha * output + sigma * x_t
        if self.prediction == "sample":
            return (x_t - alpha * output) / sigma
        return x_t + alpha * output  # flow: v = ε − x0 and x_t = (1 − σ)·x0 + σ·ε, arXiv 2403.03206

    def before(self) -> tuple[Tensor, Tensor]:
        """Noise levels α and σ `[T]` one step before each; (1, 0) before the first."""
        one, zero = torch.ones_like(self.alpha[:1]), torch.zeros_like(self.sigma[:1])
        return torch.cat([one, self.alpha[:-1]]), torch.cat([zero, self.sigma[:-1]])

    def log_variance_bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds log β̃_t and log β_t `[T]` of a learned variance of p(x_{t-1} | x_t) (arXiv 2102.09672).

        β̃ is 0 at the first level; the second level's value replaces it, as in that paper's code.
        """
        alpha, sigma = self.before()
        # σ_t² = (α_t/α_{t-1})²·σ_{t-1}² + β_t, and β̃_t = σ_{t-1}²/σ_t²·β_t
        beta = self.sigma.square() - (self.alpha / alpha * sigma).square()
        posterior = (sigma / self.sigma).square() * beta
        return torch.cat([posterior[1:2], posterior[1:]]).log(), beta.log()


def diffusion_schedule(scheduler: Any) -> Schedule:
    """Make the schedule of any scheduler with the ᾱ_t of DDPM: α = √ᾱ, σ = √(1 − ᾱ).

    Raises
    ------
    UnknownSpecError
        For a scheduler of another kind, or a prediction other than ε, v or x0.
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


def flow_schedule(scheduler: Any, mu: float) -> Schedule:
    """Make the schedule of a flow-matching scheduler: α = 1 − σ, shifted as in the model's training.

    What only spaces a sampler's steps, such as Karras or beta sigmas or a last level above 0, is left out.

    Parameters
    ----------
    scheduler : FlowMatchEulerDiscreteScheduler, or a solver with `use_flow_sigmas`
        Scheduler whose config has the shift.
    mu : float
        Dynamic shift, for a scheduler that uses one.

    Raises
    ------
    UnknownSpecError
        For a scheduler of another kind.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return _euler_schedule(scheduler, mu)
    if config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction":
        return _solver_schedule(scheduler)
    raise UnknownSpecError(
        f"a {type(scheduler).__name__} is not supported here; a flow-matching model needs a "
        "FlowMatchEulerDiscreteScheduler, or a solver with use_flow_sigmas and flow_prediction"
    )


def _euler_schedule(scheduler: Any, mu: float) -> Schedule:
    """Make the schedule of a `FlowMatchEulerDiscreteScheduler`; the network is told 1000·σ."""
    spacing = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    plain = dict(scheduler.config) | dict.fromkeys(spacing, False) | {"shift_terminal": None}
    scheduler = type(scheduler).from_config(plain)  # whatever steps were set on the given one
    n_levels = scheduler.config.num_train_timesteps
    if scheduler.config.use_dynamic_shifting:
        scheduler.set_timesteps(n_levels, mu=mu)
    # diffusers orders levels from noise to clean, and set_timesteps appends a 0
    sigma = scheduler.sigmas[:n_levels].float().flip(0)
    return Schedule(1 - sigma, sigma, sigma * n_levels, "flow")


def _solver_schedule(scheduler: Any) -> Schedule:
    """Make the schedule of a solver of flows, all of whose levels are below 1; the network is told ⌊1000·σ⌋."""
    scheduler = type(scheduler).from_config(scheduler.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, for diffusers' own code
        scheduler.set_timesteps(scheduler.config.num_train_timesteps - 1)
    sigma = scheduler.sigmas[:-1].float().flip(0)
    return Schedule(1 - sigma, sigma, scheduler.timesteps.flip(0), "flow")


def linear_shift(config: Mapping[str, Any], n_tokens: int) -> float:
    """Dynamic shift μ for images of `n_tokens` tokens, linear in it, as most of diffusers' pipelines have it."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return least + (n_tokens - low) * (most - least) / (high - low)
