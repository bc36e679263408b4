"""Pictures of the CIFAR-10 benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from figures.common import COLOURS, styled
from matplotlib.figure import Figure

from .answers import Answers
from .corruptions import FAMILIES, SEVERITIES

SHOWN = 8
"""Images in each half of the gallery."""

NAMED = 3
"""Classes that are named beside an image."""


@styled
def shift(shifted: dict[str, Any]) -> Figure:
    """Accuracy and calibration error against severity, means over the corruptions of a family."""
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(2, len(FAMILIES), sharex=True, sharey="row")
    (clean,) = shifted["clean"].values()
    for column, (family, names) in enumerate(FAMILIES.items()):
        for method, colour in zip(clean["methods"], COLOURS, strict=False):
            conditions = [[clean], *([shifted[name][str(s)] for name in names] for s in SEVERITIES)]
            for axes, of in zip(panels[:, column], (_accuracy, _calibration), strict=True):
                values = [np.mean([of(c["methods"][method]) for c in some]) for some in conditions]
                axes.plot((0, *SEVERITIES), values, "o-", color=colour, markersize=4, label=method)
        panels[0, column].set_title(f"{family}: {', '.join(names)}", fontsize=9)
        panels[1, column].set_xlabel("severity (0: clean)")
    panels[0, 0].set_ylabel("accuracy, %")
    panels[1, 0].set_ylabel("calibration error (ECE)")
    panels[0, -1].legend(fontsize=8)
    return figure


def _accuracy(summary: dict[str, Any]) -> float:
    return 100 * summary["accuracy"][0]


def _calibration(summary: dict[str, Any]) -> float:
    return summary["ece"]


@styled
def frontier(some: dict[str, Any]) -> Figure:
    """Accuracy with its interval over evaluations per image."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, (name, summary) in enumerate(some.items()):
        value, low, high = (100 * v for v in summary["accuracy"])
        x, colour = summary["evaluations"], COLOURS[i % len(COLOURS)]
        marker = "o" if i < len(COLOURS) else "s"
        axes.errorbar(x, value, [[value - low], [high - value]], fmt=marker, color=colour, markersize=6, label=name)
    figure.legend(loc="outside right center", fontsize=8)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="evaluations per image", ylabel="accuracy, % (95 %)", xlim=(-0.2, 10**4.2))
    return figure


@styled
def gallery(images: np.ndarray, y: np.ndarray, classes: Sequence[str], first: Answers, both: Answers) -> Figure:
    """Images that re-ranking fixed and images that it broke, with tier 1's posterior and the hybrid's."""
    fixed = np.flatnonzero(~first.right(y) & both.right(y))
    broken = np.flatnonzero(first.right(y) & ~both.right(y))
    figure = Figure(figsize=(13, 11), layout="constrained")
    halves = figure.subfigures(2, 1)
    for half, chosen, what in zip(halves, (fixed, broken), ("fixed", "broke"), strict=True):
        half.suptitle(f"{len(chosen)} of {len(y)} images that re-ranking {what}: {min(SHOWN, len(chosen))} of them")
        panels = half.subplots(2, SHOWN, width_ratios=[1, 1.4] * (SHOWN // 2))
        for axes in panels.flat:
            axes.axis("off")
        for i, (picture, bars) in zip(chosen[:SHOWN], panels.reshape(-1, 2), strict=False):
            picture.imshow(images[i])
            picture.set_title(f"{classes[y[i]]}\n{both.evaluations[i]} evaluations", fontsize=8)
            _posteriors(bars, classes, first.posterior[i], both.posterior[i], int(y[i]))
    return figure


def _posteriors(axes: Any, classes: Sequence[str], first: np.ndarray, both: np.ndarray, right: int) -> None:
    """Two bars for each of the likeliest classes and the right one, which is in bold."""
    order = np.argsort(-np.maximum(first, both), kind="stable")
    shown = list(dict.fromkeys([*order[:NAMED].tolist(), right]))[: NAMED + 1]
    place = np.arange(len(shown))
    axes.axis("on")
    axes.barh(place - 0.2, first[shown], 0.4, color=COLOURS[0], label="tier 1")
    axes.barh(place + 0.2, both[shown], 0.4, color=COLOURS[1], label="hybrid")
    axes.set(xlim=(0, 1), xticks=[0, 1], yticks=place, yticklabels=[classes[k] for k in shown])
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
    axes.get_yticklabels()[shown.index(right)].set_fontweight("bold")
    axes.legend(fontsize=6, loc="lower right")
