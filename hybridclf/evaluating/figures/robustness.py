"""Effective robustness: accuracy under shift against clean accuracy, on logit axes, with the baselines' line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...demo.style import GREY, colour_of, new_figure
from ..robustness import BaselineResult, fit_line
from ..shift import AS_GIVEN, ShiftRow, baseline_results
from ..wording import as_list
from .drawing import Figure, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["robustness"]


def robustness(rows: Sequence[ShiftRow], known: Sequence[BaselineResult]) -> Figure:
    """Both tiers and the hybrid above or below the line of the baselines, a panel per distribution.

    Parameters
    ----------
    rows : sequence of ShiftRow
        Rows of all methods, at least one of them with `beyond_line`.
    known : sequence of BaselineResult
        Further baselines.
    """
    own = [row for row in rows if row.beyond_line]
    found = "; ".join(f"{r.source}: {r.method} {r.beyond_line.points()}" for r in own if r.beyond_line)
    title = f"Accuracy beyond that of baselines with the same clean accuracy: {found}"
    numbers = [
        {"source": r.source, "method": r.method, "beyond_line": as_list(r.beyond_line)} for r in own if r.beyond_line
    ]
    return Figure("robustness", title, "Figure 6 of arXiv 2303.16203", numbers, drawn(lambda: _draw(rows, known)))


def _draw(rows: Sequence[ShiftRow], known: Sequence[BaselineResult]) -> "Drawing":
    clean = {row.method: row for row in rows if row.source == AS_GIVEN}
    sources = list(dict.fromkeys(row.source for row in rows if row.beyond_line))
    figure = new_figure(1.5 + 3.2 * len(sources), 3.6)
    panels = figure.subplots(1, len(sources), squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        here = [row for row in rows if row.source == source]
        baselines = [*known, *baseline_results(clean, here)]
        x = np.array([one.clean for one in baselines])
        ends = np.sort(np.concatenate([x, [clean[row.method].accuracy.value for row in here]])).clip(0.01, 0.99)
        along = np.linspace(ends[0], ends[-1], 50)
        axes.plot(100 * along, 100 * fit_line(baselines)(along), color=GREY, linewidth=1, linestyle="--")
        axes.plot(100 * x, [100 * one.shifted for one in baselines], "o", color=GREY, markersize=4, label="baselines")
        for row in (row for row in here if row.beyond_line):
            value, low, high = 100 * np.array(as_list(row.accuracy))
            axes.errorbar(
                100 * clean[row.method].accuracy.value,
                value,
                yerr=[[value - low], [high - value]],
                fmt="D",
                color=colour_of(row.method),
                markersize=6,
                label=row.method,
            )
        for set_scale in (axes.set_xscale, axes.set_yscale):
            set_scale("function", functions=(_logit, _expit))
        axes.set_title(source, fontsize=9)
        axes.set_xlabel("accuracy as given, %")
    panels[0].set_ylabel("accuracy under shift, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8.5)
    return figure


def _logit(percent: np.ndarray) -> np.ndarray:
    share = np.clip(np.asarray(percent) / 100, 1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))


def _expit(value: np.ndarray) -> np.ndarray:
    return 100 / (1 + np.exp(-np.asarray(value)))
