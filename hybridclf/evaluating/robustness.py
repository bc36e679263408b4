"""Effective robustness: accuracy under shift beyond what baselines of the same clean accuracy have."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from ..errors import InvalidInputError
from ..metrics import Interval

__all__ = ["BaselineResult", "effective_robustness", "fit_line", "half_inside", "read_baselines"]

FEWEST = 2
"""Baselines that a line is fitted to, at least."""


@dataclass(frozen=True)
class BaselineResult:
    """Accuracies of a baseline, in (0, 1).

    Attributes
    ----------
    name : str
        Name of the baseline.
    clean, shifted : float
        Accuracy on images as given, and under shift.
    """

    name: str
    clean: float
    shifted: float


def read_baselines(path: str | Path) -> list[BaselineResult]:
    """Read a CSV with the columns name, clean and shifted: accuracies in percent, or in (0, 1) if none is above 1.

    Raises
    ------
    InvalidInputError
        If it cannot be read so.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [(r["name"], float(r["clean"]), float(r["shifted"])) for r in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read as baselines: {error}; give a CSV with the columns name, clean and shifted, whose "
            "accuracies are in percent"
        ) from error
    scale = 100 if any(max(clean, shifted) > 1 for _, clean, shifted in rows) else 1
    results = [BaselineResult(name, clean / scale, shifted / scale) for name, clean, shifted in rows]
    for one in results:
        if not (0 < one.clean < 1 and 0 < one.shifted < 1):
            raise InvalidInputError(f"{path}: the accuracies of {one.name!r} must be above 0 and below 100 percent")
    return results


def fit_line(baselines: Sequence[BaselineResult]) -> Callable[[np.ndarray], np.ndarray]:
    """Fit accuracy under shift to clean accuracy, a straight line on logit axes, by least squares.

    Returns
    -------
    function
        Function from clean accuracies in (0, 1) to those that baselines have under shift.

    Raises
    ------
    InvalidInputError
        For fewer than two baselines, or clean accuracies that are all the same.
    """
    clean = logit([one.clean for one in baselines])
    if len(baselines) < FEWEST or np.ptp(clean) == 0:
        raise InvalidInputError("a line takes at least two baselines of different clean accuracy; name more of them")
    slope, intercept = np.polyfit(clean, logit([one.shifted for one in baselines]), 1)
    return lambda accuracy: expit(intercept + slope * logit(accuracy))


def effective_robustness(
    line: Callable[[np.ndarray], np.ndarray], clean: Interval, shifted: Interval, n: int
) -> Interval:
    """Accuracy under shift minus the line's at the same clean accuracy, with an interval; the line counts as known.

    The interval is made of those of both accuracies, and allows for groups as they do.

    Parameters
    ----------
    line : function
        As `fit_line` returns it.
    clean, shifted : Interval
        Both accuracies.
    n : int
        Images that the clean one is of.

    References
    ----------
    Figure 6 of arXiv 2303.16203; R. Taori et al., arXiv 2007.00644. The interval is that of G. Zou and A. Donner (2008,
    doi 10.1002/sim.3095) for a difference.
    """
    value, *ends = line(half_inside(np.array([clean.value, clean.low, clean.high]), n)).tolist()
    difference = shifted.value - value
    below, above = shifted.value - shifted.low, shifted.high - shifted.value
    return Interval(
        difference,
        difference - float(np.hypot(below, max(ends) - value)),
        difference + float(np.hypot(above, value - min(ends))),
    )


def half_inside(accuracy: np.ndarray, n: int) -> np.ndarray:
    """Accuracies half an image away from 0 and 1 at least, so that their logit is finite."""
    return np.clip(accuracy, 0.5 / n, 1 - 0.5 / n)
