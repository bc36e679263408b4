"""What the demo measured: everything that its table and pictures show, and its JSON file."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..metrics import Bins, Interval
from ..ports import Label

__all__ = ["Reliability", "Report", "Row", "Trace"]


@dataclass(frozen=True)
class Row:
    """One method on all test images.

    Attributes
    ----------
    method : str
        Its name, its parameters included.
    accuracy : Interval
        Share of right answers with its 95 % Wilson interval.
    hybrid_gain : Interval
        The hybrid's accuracy minus this one's, with its 95 % paired bootstrap interval.
    calibration_error : float or None
        Expected calibration error in 15 bins; None for a method that gives no calibrated probabilities.
    evaluations, rows : float
        Denoiser predictions and trials per image.
    images_per_second : float
        Wall-clock speed over all test images, every tier that the method uses included.
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
    """One image's race, step by step.

    Attributes
    ----------
    name : str
        The image's name.
    image : array `[H, W]` or `[H, W, 3]`
        The image.
    label : label
        The right answer.
    proposed, winner : label
        Tier 1's answer and the hybrid's.
    stopped_by : str
        Why the race ended.
    confidence : float or None
        Share at which the leader wins; None if the allocation goes by something else.
    candidates : tuple of labels `[K]`
        Who took part, in tier 1's order.
    evaluations : int array `[S]`
        Evaluations spent by each step; the first is before any.
    posterior : float array `[S, K]`
        Shares of the candidates at each step.
    alive : bool array `[S, K]`
        Who had not been dropped before that step.
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
    """All of a demo run.

    Attributes
    ----------
    seed : int
        What decided split, training and noise.
    n_train, n_test : int
        Images.
    fit_seconds, seconds : float
        Time of `fit`, calibration included, and of everything.
    table : tuple of Row
        The methods; the hybrid is the last.
    reliability : tuple of Reliability
        Tier 1 and the hybrid.
    race : Trace
        One image that the race settled.
    versions : dict
        Of Python and the packages that the numbers depend on.
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
        """The report as JSON text; what is not a number (bins without images) is null."""
        return json.dumps(asdict(self), indent=1, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON can hold them."""
    if not isinstance(value, np.generic | np.ndarray):
        raise TypeError(f"{value!r} has no JSON form")
    return np.where(np.isnan(value), np.array(None), value).tolist() if value.dtype.kind == "f" else value.tolist()
