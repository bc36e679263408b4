"""Accuracy against cost, of every method that is compared."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import GREY, colour_of, new_figure
from ..study import Study
from ..wording import ratio
from .drawing import Figure, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["frontier"]


def frontier(study: Study) -> Figure:
    """Accuracy with its interval over time, as multiples of tier 1's; a line joins what nothing beats in both."""
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "accuracy": [score.accuracy.value, score.accuracy.low, score.accuracy.high],
            "time": study.costs[name].time,
            "flops": study.costs[name].flops,
            "evaluations": score.evaluations,
        }
        for name, score in study.scores.items()
    ]
    best = [row for row, keep in zip(rows, undominated(rows), strict=True) if keep]
    best.sort(key=lambda row: row["time"])
    named = "; ".join(f"{r['method']}, {100 * r['accuracy'][0]:.1f} % at {ratio(r['time'])} x" for r in best)
    return Figure("frontier", f"Worth its time: {named}", "", rows, drawn(lambda: _draw(rows)))


def undominated(rows: Sequence[Any]) -> list[bool]:
    """Mask of the rows on the frontier: no other row is as accurate and as fast, and better in one of the two."""
    points = [(row["accuracy"][0], -row["time"]) for row in rows]
    return [not any(o[0] >= p[0] and o[1] >= p[1] and o != p for o in points) for p in points]


def _draw(rows: Sequence[Any]) -> "Drawing":
    figure = new_figure(9, 3.8)
    axes = figure.subplots()
    line = sorted((r["time"], 100 * r["accuracy"][0]) for r, keep in zip(rows, undominated(rows), strict=True) if keep)
    axes.plot(*zip(*line, strict=True), color=GREY, linewidth=1, linestyle="--", zorder=1)
    for row, marker in zip(rows, cycle("osD^vP")):
        value, low, high = 100 * np.array(row["accuracy"])
        style: dict[str, Any] = {"color": colour_of(row["method"]), "markersize": 7, "elinewidth": 1.4}
        axes.errorbar(
            row["time"], value, np.abs([[value - low], [high - value]]), fmt=marker, label=row["method"], **style
        )
    axes.set_xscale("log")
    axes.set_xlabel("time per image, multiples of tier 1's")
    axes.set_ylabel("accuracy, % (95 % interval)")
    figure.legend(loc="outside right center", fontsize=8.5)
    return figure
