"""Pictures of the CIFAR-10 benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from figures.common import colour_of, styled
from matplotlib.figure import Figure

from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES
from hybridclf.metrics import accuracy

from .answers import Answers

SHOWN = 8
"""Images in each half of the gallery."""

NAMED = 3
"""Classes that are named beside an image."""


@styled
def shift(shifted: dict[str, Any]) -> Figure:
    """Accuracy and calibration error against severity, means over the corruptions of a family, with their intervals."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, len(FAMILIES), sharex=True, sharey="row")
    (clean,) = shifted["clean"].values()
    for column, (family, names) in enumerate(FAMILIES.items()):
        for method in clean["methods"]:
            conditions = [[clean], *([shifted[name][str(s)] for name in names] for s in SEVERITIES)]
            answers = [[c["methods"][method] for c in some] for some in conditions]
            _lines(panels[:, column], answers, method)
        panels[0, column].set_title(f"{family}: {', '.join(names)}", fontsize=9)
        panels[1, column].set_xlabel("severity (0: clean)")
    panels[0, 0].set_ylabel("accuracy, % (95 % interval)")
    panels[1, 0].set_ylabel("calibration error (ECE)")
    panels[0, -1].legend(fontsize=8)
    n = next(iter(clean["methods"].values()))["n"]
    figure.suptitle(f"{_fall(shifted)} ({n} images under each corruption)", x=0.01, ha="left")
    return figure


def _lines(panels: Sequence[Any], answers: list[list[dict[str, Any]]], method: str) -> None:
    """A method's accuracy and calibration error by severity; the same images are in all corruptions of a family."""
    colour, severity = colour_of(method), (0, *SEVERITIES)
    shares = [np.mean([summary["accuracy"][0] for summary in some]) for some in answers]
    n = answers[0][0]["n"]
    ends = [accuracy(np.arange(n) < round(share * n)) for share in shares]
    panels[0].fill_between(
        severity, *(100 * np.array([(e.low, e.high) for e in ends]).T), color=colour, alpha=0.12, lw=0
    )
    panels[0].plot(severity, 100 * np.array(shares), "o-", color=colour, markersize=4, label=method)
    errors = [np.mean([summary["ece"] for summary in some]) for some in answers]
    panels[1].plot(severity, errors, "o-", color=colour, markersize=4, label=method)


def _fall(shifted: dict[str, Any]) -> str:
    """Means over all corruptions and severities, in a sentence."""
    cells = [cell for name, severities in shifted.items() if name != "clean" for cell in severities.values()]
    mean = {m: 100 * np.mean([c["methods"][m]["accuracy"][0] for c in cells]) for m in ("tier 1", "hybrid")}
    return f"Under corruptions tier 1 is right for {mean['tier 1']:.1f} % and the hybrid for {mean['hybrid']:.1f} %"


@styled
def frontier(some: dict[str, Any]) -> Figure:
    """Accuracy with its interval over evaluations per image."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    seen: list[str] = []
    for name, summary in some.items():
        value, low, high = (100 * v for v in summary["accuracy"])
        x, colour = summary["evaluations"], colour_of(name)
        marker = "os^"[seen.count(colour)]
        seen.append(colour)
        axes.errorbar(x, value, [[value - low], [high - value]], fmt=marker, color=colour, markersize=6, label=name)
    figure.legend(loc="outside right center", fontsize=8)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="evaluations per image", xlim=(-0.2, 10**4.2))
    n, best = some["hybrid"]["n"], max(some.values(), key=lambda summary: summary["evaluations"])
    axes.set_ylabel(f"accuracy on {n:,} images, % (95 % interval)")
    said = [(100 * s["accuracy"][0] + 1e-9, s["evaluations"]) for s in (some["hybrid"], best)]
    title = "The hybrid: {:.1f} % at {:.1f} evaluations per image; the costliest: {:.1f} % at {:,.0f}"
    axes.set_title(title.format(*said[0], *said[1]), fontsize=10)
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
    axes.barh(place - 0.2, first[shown], 0.4, color=colour_of("tier 1"), label="tier 1")
    axes.barh(place + 0.2, both[shown], 0.4, color=colour_of("hybrid"), label="hybrid")
    axes.set(xlim=(0, 1), xticks=[0, 1], yticks=place, yticklabels=[classes[k] for k in shown])
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
    axes.get_yticklabels()[shown.index(right)].set_fontweight("bold")
    axes.legend(fontsize=6, loc="lower right")
