"""DDIM inversion (arXiv 2010.02502): an image's way to its noise and back, the same each time."""

from itertools import pairwise

import torch
from torch import Tensor

from ..ports import Condition, Denoiser, n_prompts
from ..utils.progress import progress_bar

__all__ = ["invert", "regenerate"]


def invert(denoiser: Denoiser, x0: Tensor, condition: Condition, times: Tensor, progress: bool = False) -> Tensor:
    """Follow encoded images to their noise at the last of some times.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser: with ε̂ and (α, σ), models of ε, v and flows take the same steps.
    x0 : Tensor `[k, *shape]`
        Encoded images.
    condition : Condition `[k·n, …]`
        Condition of each image, with n prompts whose predictions are averaged.
    times : Tensor `[S]`
        Times of S steps, rising in (0, 1); the first one starts from time 0.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor `[k, *shape]`
        x_t at the last time, in float32 or above.
    """
    x = x0.to(torch.promote_types(x0.dtype, torch.float32))  # half precision would lose small steps
    for t, clean, noisy in progress_bar(_steps(denoiser, times, x), desc="invert", unit="step", show=progress):
        x = _ddim(x, _noise(denoiser, x, t, condition), clean, noisy)
    return x


def regenerate(denoiser: Denoiser, x_t: Tensor, condition: Condition, times: Tensor, progress: bool = False) -> Tensor:
    """Follow noise back to encoded images, by the steps of `invert` in reverse; arguments as there."""
    x = x_t
    steps = _steps(denoiser, times, x)[::-1]
    for t, clean, noisy in progress_bar(steps, desc="regenerate", unit="step", show=progress):
        x = _ddim(x, _noise(denoiser, x, t, condition), noisy, clean)
    return x


def _steps(denoiser: Denoiser, times: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Time and both noise levels (α, σ) `[2]` of each step; either way ε̂ is asked at the noisier end.

    At the cleaner end of the first step, time 0, no denoiser is defined.
    """
    times = times.to(x)
    levels = torch.stack([torch.stack(denoiser.noise_levels(t[None])) for t in times])[..., 0].to(x)  # [S, 2]
    levels = torch.cat([levels.new_tensor([[1.0, 0.0]]), levels])
    return [(t, clean, noisy) for t, (clean, noisy) in zip(times, pairwise(levels), strict=True)]


def _ddim(x: Tensor, noise: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Step between two noise levels with the same x̂0 and ε̂ (Equation 12 of arXiv 2010.02502 with σ_t = 0)."""
    (alpha, sigma), (next_alpha, next_sigma) = start, end
    return next_alpha * (x - sigma * noise) / alpha + next_sigma * noise


def _noise(denoiser: Denoiser, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Predicted noise `[k, *shape]` of k rows at one time, the mean over the prompts of each."""
    n = n_prompts(condition, len(x))
    row = torch.arange(len(x), device=x.device).repeat_interleave(n)
    predicted = denoiser.predict(x.to(denoiser.dtype), t.expand(len(x)), row, condition)
    return predicted.to(x).unflatten(0, (len(x), n)).mean(dim=1)
