"""Reliability: how often answers of a given confidence are right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import GREY, colour_of, new_figure
from ...metrics import Bins, Interval, accuracy
from ..methods import TIER_1
from ..scores import Score
from ..study import Study
from ..wording import as_list
from .drawing import Figure, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

__all__ = ["bin_accuracies", "draw_bins", "reliability"]


def reliability(study: Study) -> Figure:
    """Accuracy over confidence of tier 1, tier 2 alone and the recommended hybrid, in bins of equally many images."""
    rows = [{"method": name, "bins": _bins(score)} for name, score in study.scores.items()]
    shown = [study.scores[name] for name in (TIER_1, study.methods[1].name, study.hybrid)]
    errors = "; ".join(f"{score.method}, {score.calibration_error:.3f}" for score in shown)
    title = f"Confidence is this far from accuracy (expected calibration error): {errors}"
    return Figure("reliability", title, "", rows, drawn(lambda: _draw(study, shown)))


def _bins(score: Score) -> list[dict[str, Any]]:
    """The bins that have images, as plain JSON."""
    bins = score.reliability
    return [
        {"images": int(n), "confidence": float(c), "accuracy": float(a)}
        for n, c, a in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
        if n
    ]


def _draw(study: Study, scores: Sequence[Score]) -> "Drawing":
    figure = new_figure(3.2 * len(scores), 3.4)
    panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        answers = study.answers[score.method]
        answered = answers.posterior.max(axis=1), answers.label == study.test.y, study.test.units
        draw_bins(axes, score.reliability, *answered, fmt="o", color=colour_of(score.method), markersize=5)
        axes.set_title(score.method, fontsize=9.5)
    panels[0].set_ylabel("accuracy (95 % interval)")
    return figure


def draw_bins(
    axes: "Axes", bins: Bins, confidence: np.ndarray, right: np.ndarray, units: np.ndarray, **style: Any
) -> None:
    """Draw accuracy over confidence with intervals, and the line of no error.

    Parameters
    ----------
    axes : Axes
        Where to.
    bins : Bins
        Bins of the n answers.
    confidence : float array `[n]`
        Their confidences.
    right : bool array `[n]`
        True for each right answer.
    units : int array `[n]`
        Numbers of images that belong together, for which the intervals allow.
    **style
        As `errorbar` takes it.
    """
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    value, low, high = np.array([as_list(one) for one in bin_accuracies(bins, confidence, right, units)]).T
    x = bins.confidence[bins.count > 0]
    axes.errorbar(x, value, [value - low, high - value], elinewidth=1.2, clip_on=False, **style)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence")


def bin_accuracies(bins: Bins, confidence: np.ndarray, right: np.ndarray, units: np.ndarray) -> list[Interval]:
    """Accuracy in each bin that has images; arguments as for `draw_bins`."""
    number = np.searchsorted(bins.edges[1:-1], confidence)
    inside = [number == b for b in np.flatnonzero(bins.count)]
    return [accuracy(right[own], groups=units[own]) for own in inside]
