"""Accuracy against evaluations of allocations that spend fewer of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import GREY, new_figure
from ...metrics import Interval, accuracy, accuracy_difference
from ..methods import Method, replay
from ..recording import Recording
from ..wording import as_list
from .drawing import styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["draw_savings", "saved", "saving_rows"]


def saving_rows(
    methods: Sequence[tuple[Mapping[str, Any], Method]], recording: Recording, baseline: Method
) -> list[dict[str, Any]]:
    """Accuracy and cost of methods, and how they differ from one that spends all.

    Parameters
    ----------
    methods : sequence of (mapping, Method)
        What describes a method in its row, and the method.
    recording : Recording
        The images.
    baseline : Method
        The one to compare with.
    """
    dear = replay(baseline, recording)
    rows: list[dict[str, Any]] = []
    for about, method in methods:
        answers = replay(method, recording)
        right, before = answers.label == recording.y, dear.label == recording.y
        rows.append(
            {
                **about,
                "accuracy": as_list(accuracy(right, groups=recording.groups)),
                "difference": as_list(accuracy_difference(right, before, groups=recording.groups)),
                "evaluations": float(answers.evaluations.mean()),
                "rows": float(answers.rows.mean()),
                "fewer_evaluations": float(dear.evaluations.mean() / max(answers.evaluations.mean(), 1e-9)),
                "fewer_rows": float(dear.rows.mean() / max(answers.rows.mean(), 1e-9)),
            }
        )
    return rows


def saved(row: Mapping[str, Any], cost_unit: str) -> str:
    """A row's difference and saving, in words; rows count too where they are the cost."""
    rows = f" (rows: {row['fewer_rows']:.1f} times)" if cost_unit == "row" else ""
    return f"{Interval(*row['difference']).points()} for {row['fewer_evaluations']:.1f} times fewer evaluations{rows}"


def draw_savings(rows: Sequence[Any], curve: str, point: str) -> "Drawing":
    """Draw paired differences over evaluations, a curve and labelled points for the values of two columns."""
    figure = new_figure(8.5, 4)
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=1)
    for name, style in zip(dict.fromkeys(row[curve] for row in rows), styles(), strict=False):
        own = sorted((row for row in rows if row[curve] == name), key=lambda row: row["evaluations"])
        x = np.array([row["evaluations"] for row in own])
        value, low, high = 100 * np.array([row["difference"] for row in own]).T
        axes.errorbar(x, value, [value - low, high - value], label=f"{name}", **style)
        labelled = 0.0
        for row, at, y in zip(own, x, value, strict=True):
            if at > 1.1 * labelled:  # else one would cover the other
                axes.annotate(f"{row[point]}", (at, y), (4, 4), textcoords="offset points", fontsize=7.5)
                labelled = at
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"evaluations per image (numbers beside points: {point})")
    axes.set_ylabel("accuracy minus that of all trials,\npoints (paired 95 % interval)")
    figure.legend(loc="outside right center", fontsize=8.5, title=curve)
    return figure
