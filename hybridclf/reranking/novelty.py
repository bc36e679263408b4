"""Usual errors and usual input: images beyond them are novel, and tier 1 answers."""

from dataclasses import dataclass

import numpy as np

__all__ = ["UsualErrors", "UsualValues"]

QUANTILE = 0.99
"""Share of the calibration images whose level of errors counts as usual."""

HALF_WIDTH = 0.5
"""Widths of a column's range beyond it up to which its values are usual in any case."""

VECTOR_SLACK, IMAGE_SLACK = 1.25, 12.0
"""Factors on that level up to which vectors and images still count as usual.

Noise on pixels raises the errors under all classes alike, and re-ranking gains most where there is much of it. The
level is 14 under the heaviest Gaussian noise of `benchmarks/cifar10.py`, and 28 for images that are nothing but noise.
In a vector each number has a meaning of its own: a number five standard deviations off raises the level to 3, and
there answers that trust the errors are worse than tier 1's.
"""


@dataclass(frozen=True)
class UsualErrors:
    """Level of the lowest error that calibration images had, by trials.

    The level of an image after n trials is the lowest of its candidates' sums of errors, over the sum that is typical
    for these n trials. It needs no label.

    Parameters
    ----------
    times : tuple of float `[T]`
        Times of the trials that were recorded, ascending.
    typical : tuple of float `[T]`
        Median over the calibration images of the lowest unweighted error in each of these trials.
    limits : tuple of float `[L]`
        Highest usual level after 1, 2, 4, … trials.
    """

    times: tuple[float, ...]
    typical: tuple[float, ...]
    limits: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("times", "typical", "limits"):  # lists, from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def fit(cls, errors: np.ndarray, t: np.ndarray, weights: np.ndarray, vectors: bool = False) -> "UsualErrors":
        """Fit the usual level to recorded errors.

        Parameters
        ----------
        errors : float array `[n, T, k]`
            Unweighted errors of n images, in the order in which the trials will be used.
        t, weights : float array `[T]`
            Times and weights of these trials.
        vectors : bool
            Whether the items are vectors rather than images.
        """
        typical = np.median(errors.min(axis=2), axis=0)
        lowest = np.cumsum(errors * weights[:, None], axis=1, dtype=float).min(axis=2)
        level = lowest / np.maximum(np.cumsum(typical * weights), 1e-12)
        # the levels after 1, 2, 4, … trials; `ceilings` interpolates between them
        counts = 2 ** np.arange(int(np.log2(errors.shape[1])) + 1)
        slack = VECTOR_SLACK if vectors else IMAGE_SLACK
        limits = slack * np.quantile(level[:, counts - 1], QUANTILE, axis=0, method="higher")
        ascending = np.argsort(t)
        return cls(*(tuple(v.tolist()) for v in (t[ascending], typical[ascending], limits)))

    def ceilings(self, t: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Highest usual sum of the best class's weighted errors after 0, 1, … T trials, float `[T + 1]`.

        Parameters
        ----------
        t, weights : float array `[T]`
            Times and weights of the trials, in the order in which they are used.
        """
        # limits are known at powers of two, so they are interpolated in the logarithm of the number of trials
        counts = np.log2(np.arange(len(t)) + 1)
        limits = np.interp(counts, np.arange(len(self.limits)), self.limits)
        typical = np.interp(t, self.times, self.typical)
        return np.append(np.inf, limits * np.cumsum(typical * weights))


class UsualValues:
    """Ranges of the numbers in the vectors that a pair was fitted on; beyond them a vector is novel.

    A range reaches from the second lowest to the second highest value of a column, and some widths further: what a
    single row had is not usual. These are half a width, or as many as leave about 1 % of the vectors outside, one of
    them at least, where each half of them is held against the ranges of the other; a group is in one half. So many
    columns, heavy tails and rare values make hardly more vectors novel than few columns do. Columns in which a single
    row differs have widths of their own.

    Parameters
    ----------
    low, high : float array `[d]`
        Ends of the ranges.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)

    @classmethod
    def fit(cls, vectors: np.ndarray, units: np.ndarray | None = None) -> "UsualValues":
        """Learn the ranges of vectors `[n, d]`, of groups with numbers `[n]` from 0 on; default: each is alone."""
        vectors = vectors.astype(float)
        low, high, width = _range(vectors)
        beyond, is_rare = np.full(len(low), HALF_WIDTH), low == high
        half = (np.arange(len(vectors)) if units is None else units) % 2 == 0
        parts = vectors[half], vectors[~half]
        # apart, so that heavy tails of some columns do not hide a value that is rare in another
        for columns in (is_rare, ~is_rare):
            if columns.any() and min(map(len, parts)) > 1:  # a single row has no range
                ranges = [_range(part[:, columns]) for part in parts]
                found = [_excess(part[:, columns], *own) for part, own in zip(parts, ranges[::-1], strict=True)]
                beyond[columns] = max(HALF_WIDTH, np.quantile(np.concatenate(found), QUANTILE, method="lower"))
        return cls(low - beyond * width, high + beyond * width)

    def novel(self, vectors: np.ndarray) -> np.ndarray:
        """Tell which of the vectors `[m, d]` have a number out of its range, bool `[m]`."""
        return np.any((vectors < self.low) | (vectors > self.high), axis=1)


def _range(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second lowest and second highest value of each column of `[n, d]`, and what counts as its width, `[d]` each."""
    second = min(1, len(vectors) - 1)  # a single vector is its own second one
    low, high = np.partition(vectors, second, axis=0)[second], -np.partition(-vectors, second, axis=0)[second]
    low, high = np.minimum(low, high), np.maximum(low, high)
    # a column whose values are all the same but for one has no width: its spread stands for it, of a constant one 1
    spread = vectors.max(axis=0) - vectors.min(axis=0)
    width = np.where(high > low, high - low, np.where(spread > 0, spread, 1.0))
    return low, high, width


def _excess(vectors: np.ndarray, low: np.ndarray, high: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Largest distance of a number of each vector `[n, d]` from its column's range, in widths, `[n]`."""
    return (np.maximum(low - vectors, vectors - high) / width).max(axis=1)
