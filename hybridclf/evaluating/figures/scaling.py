"""Accuracy over the number of trials, a curve for each way of using them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import new_figure
from ...metrics import accuracy, accuracy_difference
from ..wording import as_list
from .drawing import styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["Curves", "draw_scaling", "scaling_rows"]

Curves = Mapping[str, Mapping[int, np.ndarray]]
"""Right answers, bool `[n]`, by name of a way and by number of trials."""


def scaling_rows(kind: str, right: Curves, baseline: str, groups: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Accuracy of each way at each number of trials, and its paired difference from one of them.

    Parameters
    ----------
    kind : str
        What the ways are, the name of their column.
    right : Curves
        Right answers.
    baseline : str
        The way to compare with, the first.
    groups : int array `[n]`, optional
        Groups of the images, for which the intervals allow.
    """
    return [
        {
            kind: name,
            "trials": n_trials,
            "accuracy": as_list(accuracy(own, groups=groups)),
            "difference": as_list(accuracy_difference(own, right[baseline][n_trials], groups=groups)),
        }
        for name, curve in right.items()
        for n_trials, own in curve.items()
    ]


def draw_scaling(kind: str, rows: Sequence[Any]) -> "Drawing":
    """Draw what `scaling_rows` found: accuracies, and beside them the paired differences, which tell more apart."""
    figure = new_figure(11, 4)
    accuracies, differences = figure.subplots(1, 2)
    names = list(dict.fromkeys(row[kind] for row in rows))
    for i, (name, style) in enumerate(zip(names, styles(), strict=False)):
        own = [row for row in rows if row[kind] == name]
        apart = 1.03 ** (i - (len(names) - 1) / 2)  # so that intervals can be seen beside each other
        x = [apart * row["trials"] for row in own]
        for axes, column in ((accuracies, "accuracy"), (differences, "difference")):
            value, low, high = 100 * np.array([row[column] for row in own]).T
            axes.errorbar(x, value, [value - low, high - value], label=name, **style)
    counts = sorted({row["trials"] for row in rows})
    for axes in (accuracies, differences):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, map(str, counts))
        axes.set_xlabel("trials of every candidate")
    reach = 100 * np.abs([row["difference"] for row in rows]).max()
    if reach > 10:  # a point is to be seen beside fifty
        differences.set_yscale("symlog", linthresh=2)
        differences.set_yticks([tick for tick in (-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50) if abs(tick) <= reach])
    differences.yaxis.set_major_formatter("{x:+g}")
    accuracies.set_ylabel("accuracy, % (95 % interval)")
    differences.set_ylabel(f"minus {names[0]}, points (paired 95 % interval)")
    figure.legend(*accuracies.get_legend_handles_labels(), loc="outside right center", fontsize=8.5, title=kind)
    return figure
