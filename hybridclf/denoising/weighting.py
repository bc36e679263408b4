"""Weights of the errors by timestep: fixed, or learned from recorded errors."""

from typing import Protocol

import numpy as np

from .objectives import _by_name

__all__ = ["BinnedWeights", "Weighting", "heuristic_weights", "uniform_weights", "velocity_weights"]

MAX_WEIGHT = 10.0
"""Bound on a timestep weight: 1/SNR grows without one as t goes to 1."""

MIN_ALPHA = 1e-3
"""Signal level below which a velocity cannot be told from the noise."""


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
            own = gap[:, index == b]
            # where wrong classes have the lower errors on average, trials count for nothing
            values[b] = max(float(own.mean()), 0.0) / max(float(own.var()), 1e-12)
        # bins without a trial are between their neighbours; the mean weight is 1
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


WEIGHTINGS: dict[str, Weighting | None] = {"learned": None, "uniform": uniform_weights, "heuristic": heuristic_weights}
"""Timestep weights by name; None: fitted."""


def resolve_weighting(name: str) -> Weighting | None:
    """The weights of that name; None if they are to be learned.

    Raises
    ------
    InvalidInputError
        For any other name.
    """
    return _by_name("weighting", WEIGHTINGS, name)
