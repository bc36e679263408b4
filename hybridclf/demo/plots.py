"""Pictures of the demo. matplotlib is imported when the first one is drawn."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from ..errors import MissingDependencyError
from ..metrics import Interval, accuracy
from ..utils.installing import pip_install
from .report import Reliability, Row, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cost_against_accuracy", "race", "reliability_diagram", "require_matplotlib"]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
"""Colours of Okabe and Ito's palette, distinct to readers with any colour vision."""

INK, GREY, FAINT = "#333333", "#888888", "#BBBBBB"

STYLE = {
    "figure.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECECEC",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
}

FEW = 10
"""Images below which a bin says little; its point is hollow."""

SHARES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
"""Ticks of the posterior on an axis of log-odds, on which evidence adds up."""

ENDS = {"confident": "sure enough", "budget": "no trials left"} | dict.fromkeys(
    ("fallback", "novel", "off"), "tier 1's answer stands"
)
"""Words for the reason why a race ended."""

P = ParamSpec("P")


def require_matplotlib() -> Any:
    """Import matplotlib and return it.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingDependencyError(
            f"pictures need matplotlib, which is not installed; type: {pip_install('plot')}"
        ) from error
    return matplotlib


def _styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Decorate a plotting function to draw in our style; the user's settings neither count nor change."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        with require_matplotlib().rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def _figure(width: float, height: float) -> "Figure":
    """Make an empty figure, sizes in inches, without a window or global state."""
    return require_matplotlib().figure.Figure(figsize=(width, height))


def _interval_point(
    axes: "Axes", x: float, interval: Interval, colour: str, scale: float = 1.0, **options: Any
) -> None:
    """Draw a point with its interval as a bar; values are multiplied by the scale."""
    value, low, high = (scale * v for v in (interval.value, interval.low, interval.high))
    reach = np.abs([[value - low], [high - value]])  # errorbar refuses a length that rounding made negative
    axes.errorbar(x, value, reach, fmt="o", color=colour, markersize=7, elinewidth=1.4, **options)


# --- cost against accuracy --------------------------------------------------------------------------------------------


@_styled
def cost_against_accuracy(table: Sequence[Row]) -> "Figure":
    """Plot accuracy with its interval over evaluations per image, on a log scale with a place for none.

    Parameters
    ----------
    table : sequence of Row
        The methods; the last one is highlighted.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = _figure(8, 4.8)
    axes = figure.add_subplot()
    costs = [row.evaluations for row in table if row.evaluations > 0]
    # a log axis has no zero: methods without evaluations stand left of the smallest cost
    nothing = 10.0 ** np.floor(np.log10(min(costs, default=1.0)) - 0.4)
    _cost_axis(axes, nothing, max(costs, default=10.0))
    free = [row for row in table if not row.evaluations]
    paid = sorted((row for row in table if row.evaluations), key=lambda row: row.evaluations)
    for i, row in enumerate(free):
        # side by side, as all of them are at the same cost
        _cost_point(axes, nothing * 1.3**i, row, _highlight(row, table), "right")
    for i, row in enumerate(paid):
        _cost_point(axes, row.evaluations, row, _highlight(row, table), "below" if i % 2 else "above")
    axes.margins(y=0.12)
    axes.set_ylabel("accuracy, % (95 % interval)")
    axes.set_title(_cost_title(table), fontsize=11, pad=10)
    return figure


def _highlight(item: Any, among: Sequence[Any]) -> str:
    return VERMILLION if item is among[-1] else BLUE


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


@_styled
def reliability_diagram(methods: Sequence[Reliability]) -> "Figure":
    """Plot accuracy over confidence of each method, above a histogram of its confidence.

    Parameters
    ----------
    methods : sequence of Reliability
        Methods, side by side in this order; the last one is highlighted.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = _figure(4.4 * len(methods), 5.6)
    grid = figure.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for method, (upper, lower) in zip(methods, grid.T, strict=True):
        _reliability_curve(upper, method, _highlight(method, methods))
        _confidence_histogram(lower, method, _highlight(method, methods))
    grid[0, 0].set_ylabel("accuracy (95 % interval)")
    grid[1, 0].set_ylabel("images (log)")
    return figure


def _reliability_curve(axes: "Axes", method: Reliability, colour: str) -> None:
    bins = method.bins
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.annotate("as sure as right", (0.13, 0.16), color=GREY, fontsize=8.5, rotation=40, rotation_mode="anchor")
    for count, confidence, right in zip(bins.count, bins.confidence, bins.accuracy, strict=True):
        if count:
            interval = accuracy(np.arange(count) < round(right * count))  # as many right answers as the bin had
            inside = "white" if count < FEW else colour
            _interval_point(axes, confidence, interval, colour, markerfacecolor=inside, clip_on=False)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title(f"{method.method}\ncalibration error {method.calibration_error:.3f}", fontsize=11)


def _confidence_histogram(axes: "Axes", method: Reliability, colour: str) -> None:
    bins = method.bins
    bars = axes.bar(bins.edges[:-1], bins.count, np.diff(bins.edges), align="edge", color=colour, edgecolor="white")
    axes.bar_label(bars, [str(n) if n else "" for n in bins.count], fontsize=7.5, padding=1)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 4 * bins.count.max())
    axes.set_yticks([])
    axes.minorticks_off()
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"confidence (hollow: fewer than {FEW} images)")


# --- a race -----------------------------------------------------------------------------------------------------------


@_styled
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
    figure = _figure(9, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.4))
    _picture(left, trace)
    # the winner is vermillion, the next four have colours, and all others are faint
    colours = iter((BLUE, GREEN, PURPLE, ORANGE))
    for k in np.argsort(-trace.posterior.max(axis=0), kind="stable"):
        wins = trace.candidates[k] == trace.winner
        _runner(right, trace, int(k), VERMILLION if wins else next(colours, FAINT), wins)
    _race_axes(right, trace)
    return figure


def _race_axes(axes: "Axes", trace: Trace) -> None:
    """Set up axes of log-odds over evaluations, with the threshold, the end and a legend of candidates."""
    end = trace.evaluations[-1]
    axes.set_yscale("logit")
    axes.set_ylim(SHARES[0] / 2, 1 - SHARES[0] / 2)
    axes.set_yticks(SHARES, [f"{100 * share:g} %" for share in SHARES])
    axes.minorticks_off()
    axes.axvline(end, color=GREY, linewidth=1, linestyle="--", zorder=1)
    if trace.confidence is not None:
        axes.axhline(trace.confidence, color=GREY, linewidth=1, linestyle="--", zorder=1)
        at = (0, trace.confidence)
        axes.annotate("sure enough to stop", at, (2, 3), textcoords="offset points", fontsize=8.5, color=GREY)
    axes.set(ylabel="posterior among the candidates", xlabel="evaluations spent on this image")
    axes.set_title(
        f"{trace.winner} wins after {end} evaluations: {ENDS.get(trace.stopped_by, trace.stopped_by)}", pad=10
    )
    axes.legend(title="candidates", loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, alignment="left")


def _picture(axes: "Axes", trace: Trace) -> None:
    axes.imshow(trace.image, cmap="gray")
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"Test image {trace.number}")
    said = f"true label: {trace.label}\ntier 1 said: {trace.proposed}\nhybrid says: {trace.winner}"
    axes.annotate(said, (0, 0), xycoords="axes fraction", xytext=(0, -8), textcoords="offset points", va="top")


def _runner(axes: "Axes", trace: Trace, k: int, colour: str, wins: bool) -> None:
    """Draw a candidate's posterior until it was dropped or the race ended."""
    # a dropped candidate never comes back
    n_steps = int(trace.alive[:, k].sum())
    x, y = trace.evaluations[:n_steps], np.clip(trace.posterior[:n_steps, k], SHARES[0] / 2, 1 - SHARES[0] / 2)
    dropped = n_steps < len(trace.alive)
    label = f"{trace.candidates[k]}, dropped after {x[-1]}" if dropped else f"{trace.candidates[k]}"
    axes.plot(x, y, ".-", color=colour, linewidth=2.6 if wins else 1.6, label=label, zorder=3 if wins else 2)
    end: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgewidth": 2, "zorder": 3, "clip_on": False}
    axes.plot(x[-1:], y[-1:], "x" if dropped else "o", **end)
