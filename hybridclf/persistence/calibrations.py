"""Saving of a calibration as JSON."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ..denoising.weighting import BinnedWeights
from ..fitting.calibration import Calibration
from ..fitting.drift import Drift
from ..fitting.outliers import NoveltyTest
from ..fitting.worth import Worth
from ..reranking.fusion import Fusion
from ..reranking.trials import InformativeOrder
from .labels import describe_labels, restore_labels

__all__ = ["describe_calibration", "restore_calibration"]


def describe_calibration(calibration: Calibration, labels: np.dtype) -> dict[str, Any]:
    """The calibration as JSON can hold it; its labels have this dtype."""
    weighting, worth, fusion = calibration.weighting, calibration.worth, asdict(calibration.fusion)
    return {
        "fusion": _describe_harmed(fusion, labels),
        "weighting": None if weighting is None else weighting.values,
        "order": calibration.order.discriminability,
        "n_images": calibration.n_images,
        "worth": None if worth is None else _describe_harmed(asdict(worth), labels),
        "drift": None if calibration.drift is None else asdict(calibration.drift),
        "novelty": None if calibration.novelty is None else asdict(calibration.novelty),
    }


def restore_calibration(saved: dict[str, Any]) -> Calibration:
    """The calibration that `describe_calibration` described."""
    weighting, worth, fusion = saved["weighting"], saved.get("worth"), _restore_harmed(saved["fusion"])
    drift, novelty = saved.get("drift"), saved.get("novelty")
    return Calibration(
        Fusion(**fusion),
        None if weighting is None else BinnedWeights(np.array(weighting)),
        InformativeOrder(np.array(saved["order"])),
        saved["n_images"],
        None if worth is None else Worth.from_dict(_restore_harmed(worth)),
        None if drift is None else Drift(**drift),
        None if novelty is None else NoveltyTest(**novelty),
    )


def _describe_harmed(values: dict[str, Any], labels: np.dtype) -> dict[str, Any]:
    """Values with "harmed" as JSON can hold it: labels of this dtype may be dates or spans of time."""
    if labels.kind not in "mM":
        return values
    return values | {"harmed": describe_labels(np.array(values["harmed"], dtype=labels))}


def _restore_harmed(saved: dict[str, Any]) -> dict[str, Any]:
    harmed = saved.get("harmed", ())
    return {**saved, "harmed": restore_labels(harmed).tolist() if isinstance(harmed, dict) else harmed}
