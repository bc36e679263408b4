"""Noise schedules of diffusers' schedulers in one form, x_t = α·x0 + σ·ε, with every prediction converted to ε̂."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hybridclf.errors import UnknownSpecError

__all__ = ["Schedule", "diffusion_schedule", "flow_schedule", "is_flow", "linear_shift"]

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
    prediction : "epsilon", "v_prediction", "sample", "flow" or "linear"
        Kind of the network's prediction.
    of_input, of_output : Tensor `[T]`, optional
        Factors of a "linear" prediction: ε̂ = of_input·x_t + of_output·output.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    prediction: str
    of_input: Tensor | None = None
    of_output: Tensor | None = None

    def to(self, device: torch.device) -> "Schedule":
        """Move the schedule to a device."""
        return self._each(lambda value: value.to(device))

    def first(self, n: int) -> "Schedule":
        """Schedule of the n lowest noise levels alone."""
        return self._each(lambda value: value[:n])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Schedule":
        tensors: dict[str, Any] = {k: change(value) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def index(self, t: Tensor) -> Tensor:
        """Index `[R]`, 0 … T-1, of the level at times t in (0, 1): ⌊t·T⌋, clipped."""
        n_levels = len(self.alpha)
        # the small term keeps ⌊(i/T)·T⌋ = i where float32 rounds i/T down
        return (t.float() * n_levels + 1e-7 * n_levels).long().clamp(0, n_levels - 1)

    def noise(self, output: Tensor, x_t: Tensor, index: Tensor) -> Tensor:
        """Convert the network's output for x_t at levels `index` `[E]` to ε̂; all `[E, …]`."""
        if self.prediction == "epsilon":
            return output
        # levels are float32, and so is a converted ε̂: in half precision α·x0 and x_t would cancel digits
        across = (-1,) + (1,) * (x_t.ndim - 1)
        if self.of_input is not None and self.of_output is not None:
            return self.of_output[index].view(across) * output + self.of_input[index].view(across) * x_t
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
    """Make the schedule of a diffusion model's scheduler.

    With the ᾱ_t of DDPM, α = √ᾱ and σ = √(1 − ᾱ). Models distilled to few steps, whose scheduler names the number
    that they were trained at (LCM, TCD), have these levels alone.

    Raises
    ------
    UnknownSpecError
        For a scheduler of another kind, or a prediction other than ε, v or x0.
    """
    if hasattr(scheduler, "precondition_outputs"):
        return _edm_schedule(scheduler)
    if hasattr(scheduler, "get_scalings_for_boundary_condition"):
        return _consistency_schedule(scheduler)
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if alphas_cumprod is None or prediction not in PREDICTIONS:
        raise UnknownSpecError(
            f"a {type(scheduler).__name__} with prediction_type {prediction!r} is not supported; supported are "
            f"schedulers with alphas_cumprod, such as DDIMScheduler, and prediction_type {' or '.join(PREDICTIONS)}"
        )
    levels = torch.arange(len(alphas_cumprod))
    n_steps = scheduler.config.get("original_inference_steps")
    if n_steps is not None:  # as `LCMScheduler.set_timesteps` has them
        levels = torch.arange(1, n_steps + 1) * (len(levels) // n_steps) - 1
    kept = alphas_cumprod.float()[levels]
    return Schedule(kept**0.5, (1 - kept) ** 0.5, levels, prediction)


def _edm_schedule(scheduler: Any) -> Schedule:
    """Make the schedule of a network with EDM's preconditioning (arXiv 2206.00364, Table 1).

    Its levels s noise x0 + s·ε, which the network sees scaled by c_in = 1/√(s² + d²), with d the data's standard
    deviation: x_t = c_in·x0 + c_in·s·ε. Its x̂0 = c_skip·(x0 + s·ε) + c_out·output makes ε̂ = c_in·s·x_t ∓ c_in·d·output,
    with a minus for a network whose c_out is positive.
    """
    scheduler = type(scheduler).from_config(scheduler.config)  # as trained, whatever steps were set on the given one
    level, spread = scheduler.sigmas[:-1].double().flip(0), scheduler.config.sigma_data
    scale = (level**2 + spread**2).rsqrt()
    sign = 1 if scheduler.config.prediction_type == "v_prediction" else -1
    alpha, sigma = scale.float(), (scale * level).float()
    timestep = scheduler.timesteps.float().flip(0)
    return Schedule(alpha, sigma, timestep, "linear", sigma, (sign * spread * scale).float())


def _consistency_schedule(scheduler: Any) -> Schedule:
    """Make the schedule of a consistency model (Appendix C of arXiv 2303.01469), preconditioned as EDM's networks are.

    The lowest level s_min, at which the prediction is the input itself, tells no classes apart and is left out.
    """
    scheduler = type(scheduler).from_config(scheduler.config)
    config, level = scheduler.config, torch.as_tensor(scheduler.sigmas)[:-1].double().flip(0)
    scale, gap = (level**2 + config.sigma_data**2).rsqrt(), level - config.sigma_min
    _, c_out = scheduler.get_scalings_for_boundary_condition(level)
    # x̂0 = c_skip·y + c_out·output for y = x0 + s·ε = x_t/scale; 1 − c_skip without its rounding
    of_input = gap**2 / (gap**2 + config.sigma_data**2) / (scale * level)
    timestep = torch.as_tensor(scheduler.timesteps)[:-1].float().flip(0)
    return Schedule(
        scale.float(), (scale * level).float(), timestep, "linear", of_input.float(), (-c_out / level).float()
    )


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
    if not is_flow(scheduler):
        raise UnknownSpecError(
            f"a {type(scheduler).__name__} is not supported here; a flow-matching model needs a "
            "FlowMatchEulerDiscreteScheduler, or a solver with use_flow_sigmas and flow_prediction"
        )
    return _solver_schedule(scheduler) if scheduler.config.get("use_flow_sigmas") else _euler_schedule(scheduler, mu)


def is_flow(scheduler: Any) -> bool:
    """Tell whether a scheduler is one that `flow_schedule` reads."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    solves_flows = config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction"
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or bool(solves_flows)


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
