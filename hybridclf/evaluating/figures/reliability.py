"""Reliability: how often answers of a given confidence are right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.plots import BLUE, GREY, VERMILLION, _figure
from ...metrics import accuracy
from ..methods import TIER_1
from ..scores import Score
from ..study import Study
from .drawing import Figure, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

__all__ = ["reliability"]


def reliability(study: Study) -> Figure:
    """Accuracy over confidence of tier 1, tier 2 alone and the recommended hybrid, in bins of equally many images."""
    rows = [{"method": name, "bins": _bins(score)} for name, score in study.scores.items()]
    shown = [study.scores[name] for name in (TIER_1, study.methods[1].name, study.hybrid)]
    errors = "; ".join(f"{score.method}, {score.calibration_error:.3f}" for score in shown)
    title = f"Confidence is this far from accuracy (expected calibration error): {errors}"
    return Figure("reliability", title, "", rows, drawn(lambda: _draw(shown)))


def _bins(score: Score) -> list[dict[str, Any]]:
    """The bins that have images, as plain JSON."""
    bins = score.reliability
    return [
        {"images": int(n), "confidence": float(c), "accuracy": float(a)}
        for n, c, a in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
        if n
    ]


def _draw(scores: Sequence[Score]) -> "Drawing":
    figure = _figure(3.2 * len(scores), 3.4)
    panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        _curve(axes, score, VERMILLION if score is scores[-1] else BLUE)
    panels[0].set_ylabel("accuracy (95 % interval)")
    return figure


def _curve(axes: "Axes", score: Score, colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    for row in _bins(score):
        right = accuracy(np.arange(row["images"]) < round(row["accuracy"] * row["images"]))
        reach = np.abs([[right.value - right.low], [right.high - right.value]])
        point: dict[str, Any] = {"color": colour, "markersize": 5, "elinewidth": 1.2, "clip_on": False}
        axes.errorbar(row["confidence"], right.value, reach, fmt="o", **point)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence")
    axes.set_title(score.method, fontsize=9.5)
