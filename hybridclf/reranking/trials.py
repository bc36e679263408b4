"""Trials: timesteps and noise (t, ε), the same for every class and every image."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidInputError

__all__ = ["INFORMATIVE_TRIALS", "InformativeOrder", "TrialPlan", "even_order", "nearest_trials"]

INFORMATIVE_TRIALS = 64
"""Trials from which a fitted order takes the most informative ones; all of them are recorded to fit it."""

_NOISE_CACHE_BYTES = 64 * 2**20


def even_order(n: int) -> np.ndarray:
    """Order of n evenly spaced points in which every prefix is nearly evenly spaced too.

    Ranks of the first n members of van der Corput's sequence in base 2; for n = 8: 0, 4, 2, 6, 1, 5, 3, 7.

    Returns
    -------
    int array `[n]`
        A permutation of range(n).
    """
    index, value, scale = np.arange(n), np.zeros(n), 0.5
    while index.any():
        value += scale * (index % 2)
        index, scale = index // 2, scale / 2
    return np.argsort(np.argsort(value))


def nearest_trials(n: int, t: np.ndarray) -> np.ndarray:
    """Permutation of the recorded trials whose first n are the nearest in time to those of an even plan of n.

    A plan of one trial has it at t = 0.5, where the first of 64 recorded ones is at 0.008. With two planned, and four
    recorded at t = (0.125, 0.625, 0.375, 0.875), the order is 0, 1, 2, 3: 0.25 is as near to the first as to the third.

    Parameters
    ----------
    n : int
        Planned trials; from as many as are recorded on, the recorded order stays.
    t : float array `[T]`
        Times of recorded trials, evenly spaced.

    Returns
    -------
    int array `[T]`
        Positions among the recorded trials; what stands for no planned one comes last.
    """
    if n >= len(t):
        return np.arange(len(t))
    planned = (even_order(n) + 0.5) / n
    first = np.abs(t[None] - planned[:, None]).argmin(axis=1)
    return np.concatenate([first, np.setdiff1d(np.arange(len(t)), first)])


class TrialPlan:
    """n trials (t, ε), shared by all classes and images so that paired differences cancel their noise.

    Timesteps are the n midpoints (i + ½)/n of (0, 1): evenly spaced timesteps scale best (Figure 4 of
    arXiv 2303.16203). The noise of a trial follows from (seed, trial) alone.

    Parameters
    ----------
    n_trials : int
        Number of trials.
    shape : tuple of int
        Shape of one encoded image.
    seed : int
        Decides all noise.
    order : sequence of int, optional
        The order in which trials are used, a permutation of range(n_trials). Default: `even_order`,
        whose every prefix is nearly even.
    """

    def __init__(self, n_trials: int, shape: Sequence[int], seed: int = 0, order: ArrayLike | None = None) -> None:
        self.n_trials = n_trials
        self.shape = tuple(shape)
        self.seed = seed
        self.order = even_order(n_trials) if order is None else np.asarray(order, dtype=int)
        if not np.array_equal(np.sort(self.order), np.arange(n_trials)):
            raise InvalidInputError(f"order must be a permutation of range({n_trials}), got {self.order!r}")
        self._timesteps = ((self.order + 0.5) / n_trials).astype(np.float32)
        self._noise: OrderedDict[int, np.ndarray] = OrderedDict()
        self._capacity = max(1, _NOISE_CACHE_BYTES // max(4, 4 * int(np.prod(self.shape))))

    def __len__(self) -> int:
        return self.n_trials

    def timesteps(self, positions: np.ndarray) -> np.ndarray:
        """Times in (0, 1), float32 `[m]`, of the trials at these positions of the order."""
        return self._timesteps[positions]

    def noise(self, positions: np.ndarray) -> np.ndarray:
        """Standard normal noise, float32 `[m, *shape]`, of the trials at these positions of the order."""
        # positions (4, 4, 2): those of 2 and 4 are drawn once, and repeated as (1, 1, 0) of these
        unique, inverse = np.unique(positions, return_inverse=True)
        return np.stack([self._draw(int(self.order[p])) for p in unique])[inverse]

    def _draw(self, trial: int) -> np.ndarray:
        """Noise of one trial, from a cache of bounded size."""
        if trial in self._noise:
            self._noise.move_to_end(trial)
            return self._noise[trial]
        # seeded by the trial, not drawn in turn: it is the same whatever else was drawn before
        noise = np.random.default_rng([self.seed, trial]).standard_normal(self.shape, dtype=np.float32)
        self._noise[trial] = noise
        if len(self._noise) > self._capacity:
            self._noise.popitem(last=False)
        return noise


class InformativeOrder:
    """A fitted order of trials: the timesteps that tell classes apart best come first.

    Parameters
    ----------
    discriminability : float array `[n_bins]`
        d′ = gap mean / gap standard deviation in equal bins of (0, 1).
    """

    def __init__(self, discriminability: np.ndarray) -> None:
        self.discriminability = np.asarray(discriminability, dtype=float)

    @classmethod
    def fit(cls, gaps: np.ndarray, t: np.ndarray, n_bins: int = 16) -> "InformativeOrder":
        """Fit it to the gaps `[n, T, …]` between wrong errors and the right one, in trials at times t `[T]`."""
        centres = (np.arange(n_bins) + 0.5) / n_bins
        index = np.clip((t * n_bins).astype(int), 0, n_bins - 1)
        seen = np.unique(index)
        values = [gaps[:, index == b].mean() / max(float(gaps[:, index == b].std()), 1e-12) for b in seen]
        # bins without a trial are between their neighbours
        return cls(np.interp(centres, centres[seen], values))

    def at(self, t: np.ndarray) -> np.ndarray:
        """d′ at times t `[m]`."""
        n_bins = len(self.discriminability)
        return self.discriminability[np.clip((t * n_bins).astype(int), 0, n_bins - 1)]

    def __call__(self, n_trials: int) -> np.ndarray:
        """A permutation of range(n_trials); among equals the even order holds."""
        even = even_order(n_trials)
        return even[np.argsort(-self.at((even + 0.5) / n_trials), kind="stable")]
