"""The demo's pictures: cost against accuracy, reliability, one race."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import Interval, accuracy
from .report import Reliability, Row, Trace
from .style import COLOURS, FAINT, GREY, colour_of, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cost_against_accuracy", "race", "reliability_diagram"]

SHARES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
"""Ticks of the posterior on an axis of log-odds, on which evidence adds up."""

ENDS = SHARES[0] / 2, 1 - SHARES[0] / 2
"""Ends of such an axis; 0 and 1 are drawn there."""

REASONS = {"confident": "sure enough", "budget": "no trials left"} | dict.fromkeys(
    ("fallback", "novel", "off"), "tier 1's answer stands"
)
"""Words for the reason why a race ended."""


def _interval_point(
    axes: "Axes", x: float, interval: Interval, colour: str, scale: float = 1.0, **options: Any
) -> None:
    """Draw a point with its interval as a bar; values are multiplied by the scale."""
    value, low, high = (scale * v for v in (interval.value, interval.low, interval.high))
    reach = np.abs([[value - low], [high - value]])  # errorbar refuses a length that rounding made negative
    axes.errorbar(x, value, reach, fmt="o", color=colour, markersize=7, elinewidth=1.4, **options)


# --- cost against accuracy --------------------------------------------------------------------------------------------


@styled
def cost_against_accuracy(table: Sequence[Row], n_images: int) -> "Figure":
    """Accuracy with its interval over evaluations per image, on a log scale that has a place for none.

    Parameters
    ----------
    table : sequence of Row
        The methods; the last one is ours.
    n_images : int
        Images that each was asked about.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(8, 4.8)
    axes = figure.add_subplot()
    costs = [row.evaluations for row in table if row.evaluations > 0]
    # a log axis has no zero: methods without evaluations stand left of the smallest cost
    nothing = 10.0 ** np.floor(np.log10(min(costs, default=1.0)) - 0.4)
    _cost_axis(axes, nothing, max(costs, default=10.0))
    free = [row for row in table if not row.evaluations]
    paid = sorted((row for row in table if row.evaluations), key=lambda row: row.evaluations)
    for i, row in enumerate(free):
        _cost_point(axes, nothing * 1.3**i, row, colour_of(row.method), "right")
    for i, row in enumerate(paid):
        _cost_point(axes, row.evaluations, row, colour_of(row.method), "below" if i % 2 else "above")
    axes.margins(y=0.12)
    axes.set_ylabel(f"accuracy on {n_images:,} images, % (95 % interval)")
    axes.set_title(_cost_title(table), fontsize=11, pad=10)
    return figure


def _cost_title(table: Sequence[Row]) -> str:
    """Title that compares the last method with the costliest, a line each."""
    compared = (table[-1], max(table, key=lambda row: row.evaluations))
    return "\n".join(
        f"{row.method} – {100 * row.accuracy.value:.1f} % at {_number(row.evaluations)} evaluations per image"
        for row in compared
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"


def _cost_axis(axes: "Axes", nothing: float, most: float) -> None:
    """Set up a log axis of evaluations, on which the position `nothing` stands for none."""
    decades = 10.0 ** np.arange(np.ceil(np.log10(nothing * 3)), np.floor(np.log10(most)) + 1)
    axes.set_xscale("log")
    axes.set_xlim(nothing / 1.8, most * 3.5)
    axes.set_xticks([nothing, *decades], ["none", *(f"{d:,.10g}" for d in decades)])
    axes.minorticks_off()
    axes.set_xlabel("evaluations per image (denoiser predictions for one image, trial and class)")


_PLACES = {"above": (0, 5, "center", "bottom"), "below": (0, -5, "center", "top"), "right": (9, 0, "left", "center")}
"""Offset in points and alignment of a method's name, by its place."""


def _cost_point(axes: "Axes", x: float, row: Row, colour: str, place: str) -> None:
    """Draw a method's point and interval, with its name beside it or beyond the interval's end."""
    _interval_point(axes, x, row.accuracy, colour, scale=100)
    dx, dy, ha, va = _PLACES[place]
    at = 100 * {"above": row.accuracy.high, "below": row.accuracy.low, "right": row.accuracy.value}[place]
    text = row.method if place == "right" else row.method.replace(": ", "\n", 1)
    style: dict[str, Any] = {"fontsize": 8.5, "color": colour, "ha": ha, "va": va}
    axes.annotate(text, (x, at), xytext=(dx, dy), textcoords="offset points", **style)


# --- reliability ------------------------------------------------------------------------------------------------------


@styled
def reliability_diagram(methods: Sequence[Reliability]) -> "Figure":
    """Accuracy over confidence of each method, side by side, on axes of log-odds, where sure answers have room.

    Parameters
    ----------
    methods : sequence of Reliability
        Two or more; the title compares the first with the last.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(4.6 * len(methods), 4.9)
    grid = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    for method, axes in zip(methods, grid, strict=True):
        _reliability_curve(axes, method)
    least = min(0.5, *(np.min([m.bins.confidence.min(), m.bins.accuracy.min()]) for m in methods))
    _reliability_axes(grid[0], max(SHARES[0], least) / 1.5)
    grid[0].set_ylabel("right answers (95 % interval)")
    figure.suptitle(_reliability_title(methods), x=0.01, ha="left")
    return figure


def _reliability_title(methods: Sequence[Reliability]) -> str:
    first, last = methods[0].calibration_error, methods[-1].calibration_error
    change = "closer to accuracy" if last < first else "no closer to accuracy"
    return f"With tier 2, confidence is {change}: calibration error {first:.3f} without, {last:.3f} with"


def _reliability_curve(axes: "Axes", method: Reliability) -> None:
    """A point per bin, and the line on which answers are right as often as they are sure."""
    bins, (low, high) = method.bins, ENDS
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--")
    for count, confidence, share in zip(bins.count, bins.confidence, bins.accuracy, strict=True):
        interval = accuracy(np.arange(count) < round(share * count))
        shown = Interval(*np.clip([interval.value, interval.low, interval.high], low, high))
        _interval_point(axes, np.clip(confidence, low, high), shown, colour_of(method.method), clip_on=False)
    axes.set_xlabel("posterior of the answer")
    n = f"{bins.count.sum():,} images in {len(bins.count)} bins of equal counts"
    axes.set_title(f"{method.method}\n{n}", fontsize=10, pad=10)


def _reliability_axes(axes: "Axes", least: float) -> None:
    """Log-odds on both axes, shared by all panels."""
    axes.set(xscale="logit", yscale="logit", xlim=(least, ENDS[1]), ylim=(least, ENDS[1]))
    ticks = [share for share in SHARES[:-1] if share > least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([*ticks, ENDS[1]], [*(f"{100 * share:g} %" for share in ticks), "100 %"])
    axes.minorticks_off()


# --- a race -----------------------------------------------------------------------------------------------------------


@styled
def race(trace: Trace) -> "Figure":
    """Plot one image, and its candidates' posterior over the evaluations spent on it.

    Parameters
    ----------
    trace : Trace
        Race of the image.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(9, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.4))
    _picture(left, trace)
    others = iter(colour for colour in COLOURS if colour != colour_of("race"))
    for k in np.argsort(-trace.posterior.max(axis=0), kind="stable"):
        wins = trace.candidates[k] == trace.winner
        _runner(right, trace, int(k), colour_of("race") if wins else next(others, FAINT), wins)
    _race_axes(right, trace)
    return figure


def _race_axes(axes: "Axes", trace: Trace) -> None:
    """Set up axes of log-odds over evaluations, with the threshold, the end and a legend of candidates."""
    end = trace.evaluations[-1]
    axes.set_yscale("logit")
    axes.set_ylim(*ENDS)
    axes.set_yticks(SHARES, [f"{100 * share:g} %" for share in SHARES])
    axes.minorticks_off()
    axes.axvline(end, color=GREY, linewidth=1, linestyle="--", zorder=1)
    if trace.confidence is not None:
        axes.axhline(trace.confidence, color=GREY, linewidth=1, linestyle="--", zorder=1)
        at = (0, trace.confidence)
        axes.annotate("sure enough to stop", at, (2, 3), textcoords="offset points", fontsize=8.5, color=GREY)
    axes.set(ylabel="posterior among the candidates", xlabel="evaluations spent on this image")
    axes.set_title(
        f"{trace.winner} wins after {end} evaluations: {REASONS.get(trace.stopped_by, trace.stopped_by)}", pad=10
    )
    axes.legend(title="candidates", loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, alignment="left")


def _picture(axes: "Axes", trace: Trace) -> None:
    axes.imshow(trace.image, cmap="gray")
    axes.set(xticks=[], yticks=[])
    axes.set_title(trace.name[:1].upper() + trace.name[1:])
    said = f"true label: {trace.label}\ntier 1 said: {trace.proposed}\nhybrid says: {trace.winner}"
    axes.annotate(said, (0, 0), xycoords="axes fraction", xytext=(0, -8), textcoords="offset points", va="top")


def _runner(axes: "Axes", trace: Trace, k: int, colour: str, wins: bool) -> None:
    """Draw a candidate's posterior until it was dropped or the race ended."""
    # a dropped candidate never comes back
    n_steps = int(trace.alive[:, k].sum())
    x, y = trace.evaluations[:n_steps], np.clip(trace.posterior[:n_steps, k], *ENDS)
    dropped = n_steps < len(trace.alive)
    label = f"{trace.candidates[k]}, dropped after {x[-1]}" if dropped else f"{trace.candidates[k]}"
    axes.plot(x, y, ".-", color=colour, linewidth=2.6 if wins else 1.6, label=label, zorder=3 if wins else 2)
    end: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgewidth": 2, "zorder": 3, "clip_on": False}
    axes.plot(x[-1:], y[-1:], "x" if dropped else "o", **end)
