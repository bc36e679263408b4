"""Report of the demo: the measurements behind its table, pictures and JSON file."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..metrics import Bins, Interval
from ..ports import Label

__all__ = ["Reliability", "Report", "Row", "Trace"]


@dataclass(frozen=True)
class Row:
    """Measurements of one method on all test images.

    Attributes
    ----------
    method : str
        Name of the method with its parameters.
    accuracy : Interval
        Accuracy with its 95 % Wilson interval.
    hybrid_gain : Interval
        The hybrid's accuracy minus this one's, with its paired 95 % interval.
    calibration_error : float or None
        Expected calibration error in 15 bins; None for a method without calibrated probabilities.
    evaluations, rows : float
        Mean evaluations and trials per image.
    images_per_second : float
        Wall-clock speed over all test images, all tiers of the method included.
    no_evaluation : float
        Share of images that needed no evaluation.
    """

    method: str
    accuracy: Interval
    hybrid_gain: Interval
    calibration_error: float | None
    evaluations: float
    rows: float
    images_per_second: float
    no_evaluation: float


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy of one method, in bins of equal counts; the calibration error has its usual bins."""

    method: str
    calibration_error: float
    bins: Bins


@dataclass(frozen=True)
class Trace:
    """Race of one image, step by step.

    Attributes
    ----------
    name : str
        The image's name.
    image : array `[H, W]` or `[H, W, 3]`
        The image.
    label : label
        Right answer.
    proposed, winner : label
        Tier 1's answer and the hybrid's.
    stopped_by : str
        Reason why the race ended.
    confidence : float or None
        Posterior at which the leader wins; None if the allocation has no such threshold.
    candidates : tuple of labels `[K]`
        Candidates, in tier 1's order.
    evaluations : int array `[S]`
        Evaluations spent before each step; the first is 0.
    posterior : float array `[S, K]`
        Posterior of the candidates at each step.
    alive : bool array `[S, K]`
        Candidates that had not been dropped before the step.
    """

    name: str
    image: np.ndarray
    label: Label
    proposed: Label
    winner: Label
    stopped_by: str
    confidence: float | None
    candidates: tuple[Label, ...]
    evaluations: np.ndarray
    posterior: np.ndarray
    alive: np.ndarray


@dataclass(frozen=True)
class Report:
    """Measurements of a demo run.

    Attributes
    ----------
    seed : int
        Seed of split, training and noise.
    n_train, n_test : int
        Number of images to train and to test.
    fit_seconds, seconds : float
        Time of `fit`, calibration included, and of the whole run.
    table : tuple of Row
        All methods, the hybrid last.
    reliability : tuple of Reliability
        Calibration of tier 1 and of the hybrid.
    race : Trace
        One image that the race settled.
    versions : dict
        Versions of Python and of the packages that the numbers depend on.
    """

    seed: int
    n_train: int
    n_test: int
    fit_seconds: float
    seconds: float
    table: tuple[Row, ...]
    reliability: tuple[Reliability, ...]
    race: Trace
    versions: dict[str, str]

    def to_json(self) -> str:
        """Write the report as JSON text; nan (in bins without images) becomes null."""
        return json.dumps(asdict(self), indent=1, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    """Convert a numpy number or array for JSON."""
    if not isinstance(value, np.generic | np.ndarray):
        raise TypeError(f"{value!r} has no JSON form")
    return np.where(np.isnan(value), np.array(None), value).tolist() if value.dtype.kind == "f" else value.tolist()
