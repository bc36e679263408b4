"""Reliability: how often answers of a given confidence are right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import GREY, colour_of, new_figure
from ...metrics import Bins, accuracy
from ..methods import TIER_1
from ..scores import Score
from ..study import Study
from .drawing import Figure, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

__all__ = ["draw_bins", "reliability"]


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
    figure = new_figure(3.2 * len(scores), 3.4)
    panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        draw_bins(axes, score.reliability, fmt="o", color=colour_of(score.method), markersize=5)
        axes.set_title(score.method, fontsize=9.5)
    panels[0].set_ylabel("accuracy (95 % interval)")
    return figure


def draw_bins(axes: "Axes", bins: Bins, **style: Any) -> None:
    """Draw accuracy over confidence with intervals, in a style that `errorbar` takes, and the line of no error."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    filled = bins.count > 0
    right = [
        accuracy(np.arange(n) < round(share * n))
        for n, share in zip(bins.count[filled].astype(int), bins.accuracy[filled], strict=True)
    ]
    value, low, high = np.array([[r.value, r.low, r.high] for r in right]).T
    axes.errorbar(bins.confidence[filled], value, [value - low, high - value], elinewidth=1.2, clip_on=False, **style)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence")
