"""Metrics of predictions: accuracy with intervals, and calibration error."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.utils import check_consistent_length

from .errors import InvalidInputError

__all__ = [
    "Bins",
    "Interval",
    "accuracy",
    "accuracy_difference",
    "equal_count_bins",
    "expected_calibration_error",
    "mean_interval",
    "reliability_bins",
]

N_BINS = 15
"""Number of equal-width bins of a calibration error, as in the literature."""


@dataclass(frozen=True)
class Interval:
    """Measured value and its confidence interval.

    Attributes
    ----------
    value, low, high : float
        The value and the ends of the interval, in one unit.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bins:
    """Confidence against accuracy in B bins of [0, 1].

    Attributes
    ----------
    edges : float array `[B + 1]`
        Ends of the bins. A bin includes its upper end, and the first one its lower end too.
    count : int array `[B]`
        Answers in each bin.
    confidence, accuracy : float array `[B]`
        Mean confidence and accuracy in each bin; nan in an empty bin.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def accuracy(right: np.ndarray, confidence_level: float = 0.95, groups: np.ndarray | None = None) -> Interval:
    """Compute the share of right answers with its Wilson score interval.

    Answers of one group may go together. Then the interval is that of as many independent answers as have the same
    standard error (an effective sample size).

    Parameters
    ----------
    right : bool array `[n]`
        True for each right answer.
    confidence_level : float
        Coverage of the interval, in (0, 1).
    groups : array `[n]`, optional
        Groups of images that belong together, such as the frames of a film. Default: each image is alone.

    Returns
    -------
    Interval
        In [0, 1].

    Raises
    ------
    InvalidInputError
        If there are no answers.
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> accuracy(np.array([True] * 9 + [False]))
    Interval(value=0.9, low=0.5958499732047616, high=0.9821237869049271)
    """
    p, n = float(np.mean(_answers(right))), float(len(right))
    if groups is not None:
        n = _effective_size(np.asarray(right, dtype=bool), groups)
    z = float(norm.ppf((1 + confidence_level) / 2))
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Interval(p, float(low) if p > 0 else 0.0, float(high) if p < 1 else 1.0)  # without rounding at the ends


def _effective_size(right: np.ndarray, groups: np.ndarray) -> float:
    """Number of independent answers whose share of right ones has the same standard error, at most n."""
    units, (p, n) = _units(groups, len(right)), (right.mean(), len(right))
    if p in (0, 1):  # nothing tells how far answers of a group go together: each group counts as one
        return float(units.max() + 1)
    # the sums of different groups are independent: groups (1, 1), (0, 0) have the sums 1, -1 about p = 1/2, and the
    # variance (1 + 1) / 4² = 1/8, that of p (1 - p) / (1/8) = 2 answers
    variance = np.square(np.bincount(units, right - p)).sum() / n**2
    return float(min(n, p * (1 - p) / variance)) if variance else float(n)


def accuracy_difference(
    right: np.ndarray,
    baseline: np.ndarray,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Interval:
    """Compute accuracy minus a baseline's on the same images, with its paired bootstrap (percentile) interval.

    Whole groups are drawn, where images belong together.

    Parameters
    ----------
    right, baseline : bool array `[n]`
        True for each right answer, image by image.
    confidence_level : float
        Coverage of the interval, in (0, 1).
    n_resamples : int
        Number of bootstrap resamples.
    seed : int
        Seed of the resamples.
    groups : array `[n]`, optional
        As for `accuracy`.

    Returns
    -------
    Interval
        In [-1, 1].

    Raises
    ------
    InvalidInputError
        If there are no answers.
    ValueError
        If the lengths differ.
    """
    check_consistent_length(right, baseline)
    difference = _answers(right).astype(int) - _answers(baseline).astype(int)
    units = _units(groups, len(right))
    # A group of b images counts with the sum a of their differences. So a resample of G groups is one multinomial draw
    # of how often each pair (a, b) occurs. Single images with differences (1, 0, 0, -1) have the pairs (-1, 1), (0, 1)
    # and (1, 1), with frequencies (1/4, 1/2, 1/4); of a draw (0, 3, 1) the mean is (0 + 0 + 1) / 4.
    sums, sizes = np.bincount(units, difference).astype(int), np.bincount(units)
    pairs, count = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(sums), count / len(sums), size=n_resamples)
    means = (draws @ pairs[0]) / (draws @ pairs[1])
    low, high = np.quantile(means, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def mean_interval(values: np.ndarray, weight: np.ndarray | None = None, groups: np.ndarray | None = None) -> Interval:
    """Compute a weighted mean with its normal 95 % interval.

    Parameters
    ----------
    values : float array `[n]`
        Values.
    weight : float array `[n]`, optional
        Their weights, not negative. Default: all count alike.
    groups : array `[n]`, optional
        As for `accuracy`.
    """
    weight = np.ones(len(values)) if weight is None else weight
    share = weight / weight.sum()
    mean = float(share @ values)
    # sums by group are independent; of equal weights and single values: the standard deviation over sqrt(n)
    error = float(np.sqrt(np.square(np.bincount(_units(groups, len(values)), share * (values - mean))).sum()))
    return Interval(mean, mean - 1.96 * error, mean + 1.96 * error)


def _units(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Group numbers `[n]` from 0 on."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"there are {n} answers and {len(groups)} groups")
    return np.unique(groups, return_inverse=True)[1].ravel()


def reliability_bins(confidence: np.ndarray, right: np.ndarray, n_bins: int = N_BINS) -> Bins:
    """Bin answers by confidence, as a reliability diagram shows them.

    Parameters
    ----------
    confidence : float array `[n]`
        Posterior of each answer, in [0, 1].
    right : bool array `[n]`
        True for each right answer.
    n_bins : int
        Number of equal-width bins.

    Returns
    -------
    Bins

    Raises
    ------
    InvalidInputError
        If there are no answers, or a confidence is outside [0, 1] by more than rounding.
    ValueError
        If the lengths differ.
    """
    check_consistent_length(confidence, right)
    if not np.all((confidence >= -1e-9) & (confidence <= 1 + 1e-9)):
        raise InvalidInputError(f"confidence must lie in [0, 1], got {np.min(confidence)} to {np.max(confidence)}")
    edges = np.linspace(0, 1, n_bins + 1)
    number = np.searchsorted(edges[1:-1], np.clip(confidence, 0, 1))
    # per bin: how many answers, the sum of their confidences, and how many are right
    count, *sums = (np.bincount(number, w, n_bins) for w in (None, confidence, _answers(right)))
    with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins
        return Bins(edges, count, sums[0] / count, sums[1] / count)


def equal_count_bins(confidence: np.ndarray, right: np.ndarray, n_bins: int = 10) -> Bins:
    """Compute confidence and accuracy in bins that hold equally many answers, as nearly as equal confidences allow.

    Bins of equal width leave most answers in the last one and a handful in the rest. Confidences 0.2, 0.4, 0.4, 0.9
    make two bins: 0.2 to 0.4, with three answers, and 0.9.

    Parameters
    ----------
    confidence, right
        As for `reliability_bins`.
    n_bins : int
        Largest number of bins.

    Raises
    ------
    InvalidInputError
        For no answers.
    ValueError
        If lengths differ.
    """
    check_consistent_length(confidence, right)
    right = _answers(right)
    edges = np.unique(np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="lower"))
    edges = np.array([0.0, *edges[(edges > 0) & (edges < np.max(confidence))], 1.0])
    number = np.searchsorted(edges[1:-1], confidence)
    count, *sums = (np.bincount(number, w, len(edges) - 1) for w in (None, confidence, right))
    return Bins(edges, count, sums[0] / count, sums[1] / count)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = N_BINS) -> float:
    """Compute the expected calibration error: `|confidence - accuracy|`, averaged over answers by bin.

    Parameters
    ----------
    confidence, right, n_bins
        As in `reliability_bins`, with its errors.

    Returns
    -------
    float
        In [0, 1].

    References
    ----------
    Section 2 of arXiv 1706.04599.
    """
    bins = reliability_bins(confidence, right, n_bins)
    return float(np.nansum(bins.count * np.abs(bins.confidence - bins.accuracy)) / len(right))


def _answers(right: np.ndarray) -> np.ndarray:
    if not len(right):
        raise InvalidInputError("there are no answers to measure; pass at least one")
    return np.asarray(right, dtype=bool)
