"""Errors between the noise that was added and the noise that was predicted, and their timestep weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InvalidInputError
from .ports import VarianceDenoiser

__all__ = [
    "BOUNDS",
    "OBJECTIVES",
    "BinnedWeights",
    "Objective",
    "Transition",
    "Weighting",
    "check_objective",
    "heuristic_weights",
    "resolve_objective",
    "uniform_weights",
    "velocity_weights",
]

Objective = Callable[..., Tensor]
"""Errors `[P]` from noise and predicted noise `[P, …]`; those in `BOUNDS` ask for a `Transition` too."""

MAX_WEIGHT = 10.0
"""Bound on a timestep weight: 1/SNR grows without one as t goes to 1."""

MIN_ALPHA = 1e-3
"""Signal below which a velocity is not told from the noise any more."""


def _reduce(distance: Tensor) -> Tensor:
    """Sum over all but the first axis, in float32 or better."""
    return distance.flatten(1).sum(1)


def _residual(noise: Tensor, predicted: Tensor) -> Tensor:
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return predicted.to(dtype) - noise.to(dtype)


def l2(noise: Tensor, predicted: Tensor) -> Tensor:
    """Squared ℓ2 error ‖ε − ε̂‖² `[P]` of two `[P, …]`: Algorithm 1 of arXiv 2303.16203."""
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return _reduce(F.mse_loss(predicted.to(dtype), noise.to(dtype), reduction="none"))  # in one pass over memory


def l1(noise: Tensor, predicted: Tensor) -> Tensor:
    """ℓ1 error `[P]`: Table 8 of arXiv 2303.16203 (better than ℓ2 on half of its data sets)."""
    return _reduce(_residual(noise, predicted).abs())


def huber(noise: Tensor, predicted: Tensor) -> Tensor:
    """Squared error below 1 and absolute error above `[P]`: Appendix C of arXiv 2303.16203, as it words it.

    Unlike the textbook Huber loss its slope is not continuous at 1; its value is.
    """
    residual = _residual(noise, predicted).abs()
    return _reduce(torch.where(residual < 1, residual.square(), residual))


class Transition(NamedTuple):
    """What the variational bound of P pairs asks for beside the two noises.

    Attributes
    ----------
    x0, log_variance : Tensor `[P, …]`
        The image, and the learned log-variance of p(x_{t-1} | x_t).
    alpha, sigma, alpha_before, sigma_before : Tensor `[P]`
        Noise levels at t and at t - 1, which are (1, 0) before the first.
    """

    x0: Tensor
    log_variance: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_before: Tensor
    sigma_before: Tensor


def vlb(noise: Tensor, predicted: Tensor, transition: Transition) -> Tensor:
    """Term of the variational bound in bits `[P]`: Section 6.3.3 of arXiv 2303.16203, Equations 4-6 of 2102.09672.

    KL(q(x_{t-1} | x_t, x0) ‖ p(x_{t-1} | x_t)), and at the first level -log p(x0 | x_1) of pixels in steps of 2/255.
    Summed over dimensions, as all errors are here; the papers' code has the mean.
    """
    residual = _residual(noise, predicted)
    x0, log_variance = (v.to(residual.dtype) for v in transition[:2])
    across = (-1,) + (1,) * (residual.ndim - 1)
    alpha, sigma, alpha_before, sigma_before = (v.to(residual.dtype).view(across) for v in transition[2:])
    ratio = alpha / alpha_before
    beta = sigma.square() - (ratio * sigma_before).square()  # 1 - ratio², which would cancel
    shift = beta / (sigma * ratio) * residual  # between the two means
    log_true = (beta * (sigma_before / sigma).square()).log()
    kl = (log_variance - log_true - 1 + (log_true - log_variance).exp() + shift.square() * (-log_variance).exp()) / 2
    nats = torch.where(sigma_before > 0, kl, _decoder_nll(x0, shift, log_variance))
    return _reduce(nats) / math.log(2)


def _decoder_nll(x0: Tensor, distance: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the mass that a Gaussian at that distance gives to the steps x0 ± 1/255, open at the ends of [-1, 1]."""
    scale = (-log_variance / 2).exp()
    above, below = (torch.special.ndtr(scale * (distance + half)) for half in (1 / 255, -1 / 255))
    mass = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return -mass.clamp(min=1e-12).log()


def l2_vlb(noise: Tensor, predicted: Tensor, transition: Transition) -> Tensor:
    """`l2` + `vlb` `[P]`, with equal weights: Table 5 of arXiv 2303.16203, and what DiT was trained with."""
    return l2(noise, predicted) + vlb(noise, predicted, transition)


OBJECTIVES: dict[str, Objective] = {"l2": l2, "l1": l1, "huber": huber}
"""Errors by name."""

BOUNDS: dict[str, Objective] = {"vlb": vlb, "l2+vlb": l2_vlb}
"""Errors that need a denoiser's learned variance, by name."""


def resolve_objective(name: str) -> Objective:
    """The objective of that name.

    Raises
    ------
    InvalidInputError
        For any other name.
    """
    return _by_name("objective", OBJECTIVES | BOUNDS, name)


def check_objective(name: str, denoiser: Any) -> None:
    """Check that an objective can be had with a denoiser; None for one that `fit` trains.

    Raises
    ------
    InvalidInputError
        If it needs a variance that the denoiser has not learned.
    """
    if name in BOUNDS and not isinstance(denoiser, VarianceDenoiser):
        kind = "the one that fit trains" if denoiser is None else f"a {type(denoiser).__name__}"
        raise InvalidInputError(
            f"objective {name!r} needs a denoiser that has learned its variance, such as DiT; {kind} has not: use one "
            f"of {', '.join(map(repr, OBJECTIVES))}"
        )


def _by_name(kind: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise InvalidInputError(f"{kind} must be one of {', '.join(map(repr, table))}; got {name!r}")
    return table[name]


class Weighting(Protocol):
    """A timestep weight for errors in ε."""

    def __call__(self, t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Weights `[m]` ≥ 0 of trials at times t with noise levels (α, σ), each `[m]`."""
        ...


def uniform_weights(t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """w = 1: Equation 4 of arXiv 2303.16203."""
    return np.ones_like(t, dtype=float)


def heuristic_weights(t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Clark & Jaini's exp(−7t) (arXiv 2303.15233), which weights the error in x, as a weight for ε.

    x̂ − x = −(σ/α)(ε̂ − ε), so the weight of the squared ε-error is exp(−7t)·σ²/α² = exp(−7t)/SNR, clipped to
    `MAX_WEIGHT`.
    """
    return np.minimum(np.exp(-7.0 * t) * np.square(sigma / np.maximum(alpha, 1e-6)), MAX_WEIGHT)


def velocity_weights(t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Uniform weights of the squared error in a flow's velocity v = ε - x0 (arXiv 2403.03206), as weights for ε.

    x̂0 - x0 = -(σ/α)(ε̂ - ε), so v̂ - v = (1 + σ/α)(ε̂ - ε), and the weight is (1 + σ/α)². It is not clipped to
    `MAX_WEIGHT`: the step from v̂ to ε̂ has divided the error by as much, so that weighted errors do not grow with t.
    """
    return np.square(1 + sigma / np.maximum(alpha, MIN_ALPHA))


class BinnedWeights:
    """Weights learned per time bin, as the 20 buckets of arXiv 2303.15233.

    Parameters
    ----------
    values : array `[n_bins]`
        Weight ≥ 0 of each of n_bins equal bins of (0, 1).
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values, dtype=float)

    @classmethod
    def fit(cls, errors: np.ndarray, t: np.ndarray, y: np.ndarray, n_bins: int = 20) -> "BinnedWeights":
        """Weights gap mean / gap variance, from recorded errors of labelled images.

        A gap is the error of a wrong class minus that of the right one. For independent Gaussian gaps this ratio
        is Fisher's discriminant, the weight that tells classes apart best.

        Parameters
        ----------
        errors : array `[n, T, C]`
            Errors of n images in T trials under C classes.
        t : array `[T]`
            Times of the trials.
        y : int array `[n]`
            The right class of each image.
        n_bins : int
            Number of time bins.
        """
        gap = paired_gaps(errors, y)
        index = _bin(t, n_bins)
        values = np.zeros(n_bins)
        for b in np.unique(index):
            values[b] = _fisher(gap[:, index == b])
        values = np.interp(np.arange(n_bins), np.unique(index), values[np.unique(index)])
        return cls(values / max(values.mean(), 1e-12) if values.any() else np.ones(n_bins))

    def __call__(self, t: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Weights `[m]` of trials at times t `[m]`."""
        return self.values[_bin(t, len(self.values))]


def paired_gaps(errors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Every wrong error minus the right one `[n, T, C - 1]`, from errors `[n, T, C]` and right classes `[n]`.

    All of them, not the smallest of each trial: that one is negative wherever single trials say little.
    """
    right = np.take_along_axis(errors, y[:, None, None], axis=2)
    wrong = np.arange(errors.shape[2]) != y[:, None]
    others = np.nonzero(wrong)[1].reshape(len(y), 1, -1)
    return np.take_along_axis(errors, others, axis=2).astype(float) - right


def _bin(t: np.ndarray, n_bins: int) -> np.ndarray:
    return np.clip((np.asarray(t) * n_bins).astype(int), 0, n_bins - 1)


def _fisher(gap: np.ndarray) -> float:
    return max(float(gap.mean()), 0.0) / max(float(gap.var()), 1e-12)


WEIGHTINGS: dict[str, Weighting | None] = {"learned": None, "uniform": uniform_weights, "heuristic": heuristic_weights}
"""Timestep weights by name; None for those that are fitted."""


def resolve_weighting(name: str) -> Weighting | None:
    """The weights of that name; None if they are to be learned.

    Raises
    ------
    InvalidInputError
        For any other name.
    """
    return _by_name("weighting", WEIGHTINGS, name)
