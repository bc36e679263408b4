"""Metrics of predictions: accuracy with intervals, and calibration error."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t
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

ROUNDING = 1e-6
"""How far a confidence in single precision may be above 1 or below 0."""


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

    def percent(self) -> str:
        """A share as "88.1 % (85.0 to 90.7)"."""
        value, low, high = (100 * v for v in (self.value, self.low, self.high))
        return f"{value:.1f} % ({low:.1f} to {high:.1f})"

    def points(self) -> str:
        """A difference of two shares as "+0.9 points (-0.1 to 1.9)"."""
        value, low, high = (100 * v for v in (self.value, self.low, self.high))
        return f"{value:+.1f} points ({low:.1f} to {high:.1f})"


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


def accuracy(
    right: np.ndarray,
    confidence_level: float = 0.95,
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Interval:
    """Compute the share of right answers with its Wilson score interval.

    Answers of one group may go together, and weights make some count for more. Then the interval is that of as many
    independent answers as have the same standard error (an effective sample size), with Student's t for the number of
    groups.

    Parameters
    ----------
    right : bool array `[n]`
        True for each right answer.
    confidence_level : float
        Coverage of the interval, in (0, 1).
    groups : array `[n]`, optional
        Groups of images that belong together, such as the frames of a film. Default: each image is alone.
    weight : float array `[n]`, optional
        Weights of the answers, not negative. Default: all count alike.

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
    weight = np.ones(len(_answers(right))) if weight is None else weight
    check_consistent_length(right, weight)
    p, n, z = float(np.average(right, weights=weight)), float(len(right)), float(norm.ppf((1 + confidence_level) / 2))
    units = group_numbers(groups, len(right))
    if units.max(initial=0) < n - 1 or np.ptp(weight):
        n = _effective_size(np.asarray(right, dtype=bool), weight / weight.sum(), units)
        z = _quantile(confidence_level, units[weight > 0])
    if not np.isfinite(z):  # of a single group nothing is known
        return Interval(p, 0.0, 1.0)
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Interval(p, float(low) if p > 0 else 0.0, float(high) if p < 1 else 1.0)  # without rounding at the ends


def _effective_size(right: np.ndarray, share: np.ndarray, units: np.ndarray) -> float:
    """Number of independent answers whose share of right ones has the same standard error, at most as many as weigh.

    Each answer has a share of the weight, and a group's number.
    """
    p, n = float(share @ right), 1 / float(share @ share)  # Kish's size, n where all weigh the same
    if len(np.unique(right[share > 0])) < 2:  # nothing tells how far answers go together: each group counts as one
        return 1 / float(np.square(np.bincount(units, share)).sum())
    error = _error(right - p, share, units)
    return min(n, p * (1 - p) / error**2) if error else n


def accuracy_difference(
    right: np.ndarray,
    baseline: np.ndarray,
    *,
    confidence_level: float = 0.95,
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Interval:
    """Compute accuracy minus a baseline's on the same images, with its adjusted Wald interval.

    The interval is that of Bonett and Price (2012, doi 10.3102/1076998611411915): one more image that only the method
    gets right, and one that only the baseline does, keep it from closing where few answers differ. With groups they
    count as a group each, of the mean size.

    Parameters
    ----------
    right, baseline : bool array `[n]`
        True for each right answer, image by image.
    confidence_level : float
        Coverage of the interval, in (0, 1).
    groups, weight : array `[n]`, optional
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
    check_consistent_length(right, baseline, weight)
    difference = _answers(right).astype(int) - _answers(baseline).astype(int)
    units, weight = group_numbers(groups, len(right)), np.ones(len(right)) if weight is None else weight
    n_groups = len(np.unique(units[weight > 0]))
    adjusted = mean_interval(
        np.append(difference, (1, -1)),
        np.append(weight, np.full(2, weight.sum() / n_groups)),
        np.append(units, (len(units), len(units) + 1)),
        confidence_level,
    )
    return Interval(float(np.average(difference, weights=weight)), max(adjusted.low, -1.0), min(adjusted.high, 1.0))


def mean_interval(
    values: np.ndarray,
    weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    confidence_level: float = 0.95,
) -> Interval:
    """Compute a weighted mean with its interval by Student's t.

    Parameters
    ----------
    values : float array `[n]`
        Values.
    weight : float array `[n]`, optional
        Their weights, not negative; values of weight 0 are as if not given. Default: all count alike.
    groups : array `[n]`, optional
        As for `accuracy`. Of a single group, or value, the interval is infinite.
    confidence_level : float
        Coverage of the interval, in (0, 1).
    """
    weight = np.ones(len(values)) if weight is None else weight
    share, units = weight / weight.sum(), group_numbers(groups, len(values))
    mean = float(share @ values)
    half = _quantile(confidence_level, units[share > 0]) * _error(values - mean, share, units)
    return Interval(mean, mean - half, mean + half)


def _error(residuals: np.ndarray, share: np.ndarray, units: np.ndarray) -> float:
    """Standard error of a mean, from residuals `[n]`, their shares `[n]` of the weight, and group numbers `[n]`.

    Sums by group are independent; of G groups they lose one degree of freedom to the mean. Infinite for one group.
    """
    n_groups = len(np.unique(units[share > 0]))
    if n_groups == 1:
        return np.inf
    sums = np.bincount(units, share * residuals)
    return float(np.sqrt(np.square(sums).sum() * n_groups / (n_groups - 1)))


def _quantile(confidence_level: float, units: np.ndarray) -> float:
    """Quantile of Student's t with one degree of freedom less than there are groups; infinite for a single one."""
    n_groups = len(np.unique(units))
    return float(t.ppf((1 + confidence_level) / 2, n_groups - 1)) if n_groups > 1 else np.inf


def group_numbers(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Number groups from 0 on, int `[n]`; where none are given each image is a group by itself."""
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
    confidence, right = _confidences(confidence, right)
    edges = np.linspace(0, 1, n_bins + 1)
    number = np.searchsorted(edges[1:-1], confidence)
    # per bin: how many answers, the sum of their confidences, and how many are right
    count, *sums = (np.bincount(number, w, n_bins) for w in (None, confidence, right))
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
        As for `reliability_bins`.
    ValueError
        If lengths differ.
    """
    confidence, right = _confidences(confidence, right)
    edges = np.unique(np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="lower"))
    edges = np.array([0.0, *edges[(edges > 0) & (edges < np.max(confidence))], 1.0])
    number = np.searchsorted(edges[1:-1], confidence)
    count, *sums = (np.bincount(number, w, len(edges) - 1) for w in (None, confidence, right))
    return Bins(edges, count, sums[0] / count, sums[1] / count)


def _confidences(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, float `[n]` in [0, 1] without rounding, and right answers, bool `[n]`."""
    check_consistent_length(confidence, right)
    right, confidence = _answers(right), np.asarray(confidence, dtype=float)
    if not np.all((confidence >= -ROUNDING) & (confidence <= 1 + ROUNDING)):  # nan is neither
        raise InvalidInputError(f"confidence must lie in [0, 1], got {confidence.min()} to {confidence.max()}")
    return np.clip(confidence, 0, 1), right


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
