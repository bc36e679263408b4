"""Reliability: how often answers of a given confidence are right."""

from typing import Any

from ...demo.plots import reliability_diagram
from ...demo.report import Reliability
from ...metrics import Bins
from ..methods import TIER_1
from ..study import Study
from .drawing import Figure, drawn

__all__ = ["reliability"]


def reliability(study: Study) -> Figure:
    """Accuracy over confidence of tier 1, tier 2 alone and the recommended hybrid, in bins of equally many images."""
    scores = study.scores
    shown = [scores[name] for name in (TIER_1, study.methods[1].name, study.hybrid)]
    methods = [Reliability(s.method, s.calibration_error, s.reliability) for s in shown]
    rows = [{"method": name, "bins": _plain(score.reliability)} for name, score in scores.items()]
    errors = ", ".join(f"{s.method} {s.calibration_error:.3f}" for s in shown)
    return Figure(
        "reliability", f"Expected calibration error: {errors}", "", rows, drawn(lambda: reliability_diagram(methods))
    )


def _plain(bins: Bins) -> list[dict[str, Any]]:
    """The bins that have images, as plain JSON."""
    return [
        {"images": int(n), "confidence": float(c), "accuracy": float(a)}
        for n, c, a in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
        if n
    ]
