"""Figure 2: what each allocation costs to be as accurate as the exhaustive one, on the same weights (digits).

Every method is asked about the same test images with tier 1's prior (its candidates and the fitted fusion) and
without (every class, evidence alone; a race keeps its fitted fusion, under a uniform prior). FLOPs are the denoiser's,
times include tier 1 where its prior is used.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from timing import flops, medians

from hybridclf import Allocation, FixedTrials, Fusion, HybridClassifier, PairedTTest, Race, RerankResult, Staged
from hybridclf.demo.digits import Digits, split_digits
from hybridclf.demo.style import GREY
from hybridclf.metrics import accuracy

from .common import Line, colour_of, styled

TOLERANCE = 0.002
"""Largest distance below the exhaustive accuracy that counts as the same."""

METHODS = tuple(kind.__name__ for kind in (FixedTrials, Staged, PairedTTest, Race))
PRIOR = {False: "without prior", True: "with prior"}


@dataclass(frozen=True)
class Sizes:
    """Splits, folds of the fusion's fit, passes of training, images (None: all), settings, repeats of the timings.

    The first setting is the exhaustive one.
    """

    seeds: tuple[int, ...]
    cv: int | float
    max_iter: int
    n_images: int | None
    settings: tuple[Allocation, ...]
    repeats: int


STAGES = tuple(Staged(*s) for s in (((5, 2, 1), (2, 8, 32)), ((5, 2, 1), (4, 16, 64)), ((5, 1), (6, 64))))
T_TESTS = tuple(PairedTTest(p, n, 256) for p, n in ((0.05, 3), (0.02, 5), (0.002, 5), (0.002, 20)))
RACES = tuple(Race(confidence, 32) for confidence in (0.9, 0.95, 0.99, 0.999))
PRESETS = tuple(Staged.preset(name) for name in ("pets", "cifar10"))


def _fixed(most: int) -> tuple[FixedTrials, ...]:
    return tuple(FixedTrials(2**i) for i in range(most, -1, -1))


SIZES = {
    "small": Sizes((0,), 0.2, 150, None, (*_fixed(6), *STAGES, *T_TESTS, *RACES), 3),
    "full": Sizes((0, 1, 2, 3, 4), 3, 150, None, (*_fixed(8), *STAGES, *PRESETS, *T_TESTS, *RACES), 5),
}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Ask every setting on all splits; then time, in turn on the first, the cheapest of each method that reaches."""
    fitted = [fit(seed, sizes, device) for seed in sizes.seeds]
    asked = [(setting, prior) for prior in PRIOR for setting in sizes.settings]
    points = [point(fitted, *question) for question in asked]
    reached = cheapest(points, points[0]["accuracy"] - TOLERANCE)
    clf, data = fitted[0]
    calls = [partial(ask, clf, data.test, *asked[i]) for i in (0, *reached.values())]
    seconds = (medians(*calls, repeats=sizes.repeats) / len(data.test)).tolist()
    return {
        "seeds": sizes.seeds,
        "tolerance": TOLERANCE,
        "points": points,
        "exhaustive": points[0] | {"seconds": seconds[0]},
        "reached": {
            name: points[i] | {"seconds": s, "time_ratio": seconds[0] / s}
            for (name, i), s in zip(reached.items(), seconds[1:], strict=True)
        },
    }


def fit(seed: int, sizes: Sizes, device: torch.device) -> tuple[HybridClassifier, Digits]:
    """Both tiers, fitted on one half of the digits."""
    data = split_digits(seed, sizes.n_images)
    clf = HybridClassifier(cv=sizes.cv, max_iter=sizes.max_iter, device=str(device), random_state=seed)
    return clf.fit(data.train, data.train_labels), data


def ask(clf: HybridClassifier, images: np.ndarray, allocation: Allocation, prior: bool) -> list[RerankResult]:
    """Answers of an allocation to the images, tier 1's part included where its prior is used."""
    if prior:
        return clf.reranker(allocation).rerank(images, *clf.propose(images))
    fusion = None if isinstance(allocation, Race) else Fusion()
    return clf.reranker(allocation, fusion).rerank(images, [clf.classes_.tolist()] * len(images))


def point(fitted: list[tuple[HybridClassifier, Digits]], allocation: Allocation, prior: bool) -> dict[str, Any]:
    """Accuracy of a setting and its cost per image, means over the test images of all splits."""
    results: list[RerankResult] = []

    def run() -> None:
        for clf, data in fitted:
            results.extend(ask(clf, data.test, allocation, prior))

    spent = flops(run)
    labels = np.concatenate([data.test_labels for _, data in fitted])
    return {
        "method": f"{type(allocation).__name__} {PRIOR[prior]}",
        "setting": repr(allocation),
        "accuracy": float(np.mean([r.ranking[0] == y for r, y in zip(results, labels, strict=True)])),
        "evaluations": float(np.mean([r.evaluations for r in results])),
        "rows": float(np.mean([r.rows for r in results])),
        "flops": spent / len(results),
    }


def cheapest(points: list[dict[str, Any]], accuracy: float) -> dict[str, int]:
    """By method, which point of at least that accuracy has the fewest evaluations; none for methods without one."""
    found: dict[str, int] = {}
    for i in sorted(range(len(points)), key=lambda i: points[i]["evaluations"]):
        if points[i]["accuracy"] >= accuracy:
            found.setdefault(points[i]["method"], i)
    return found


def lines(report: dict[str, Any]) -> list[Line]:
    """The exhaustive cost over each method's; nan for a method that is never as accurate."""
    names = [f"{method} {prior}" for prior in PRIOR.values() for method in METHODS]
    costs = {"evaluations": "evaluations", "rows": "rows", "FLOPs": "flops", "seconds": "seconds"}
    return [
        Line(f"exhaustive {what} over those of {name}", _ratio(report, name, key))
        for name in names
        for what, key in costs.items()
    ]


def _ratio(report: dict[str, Any], name: str, key: str) -> float:
    reached = report["reached"].get(name)
    return report["exhaustive"][key] / reached[key] if reached else float("nan")


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Accuracy against evaluations and FLOPs, with tier 1's prior and without.

    Intervals are as if the answers were independent; splits share images.
    """
    figure = Figure(figsize=(11, 7.5))
    grid, n = figure.subplots(2, 2, sharex="col", sharey=True), _n_answers(report)
    for row, prior in zip(grid, reversed(PRIOR.values()), strict=True):
        for axes, key in zip(row, ("evaluations", "flops"), strict=True):
            for method in METHODS:
                points = [p for p in report["points"] if p["method"] == f"{method} {prior}"]
                _curve(axes, sorted(points, key=lambda p: p[key]), key, method, n)
            axes.axhline(100 * report["exhaustive"]["accuracy"], color=GREY, linewidth=1, linestyle="--")
            axes.set(xscale="log")
        row[0].set(ylabel="accuracy, % (95 % interval)", title=prior)
    for axes, what in zip(grid[1], ("evaluations", "FLOPs"), strict=True):
        axes.set_xlabel(f"{what} per image")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, [*labels], loc="outside lower center", ncols=len(METHODS))
    figure.suptitle(_finding(report, n), x=0.01, ha="left")
    return figure


def _n_answers(report: dict[str, Any]) -> int:
    """Answers behind each point: the test half of the digits, or of as many as the profile has, on every split."""
    n_images = SIZES[report["profile"]].n_images or len(load_digits().images)
    return len(report["seeds"]) * math.ceil(n_images / 2)


def _finding(report: dict[str, Any], n: int) -> str:
    exhaustive, within = report["exhaustive"], 100 * report["tolerance"]
    ratio = exhaustive["evaluations"] / report["reached"].get("Race with prior", exhaustive)["evaluations"]
    return (
        f"A race with tier 1's prior is as accurate as {exhaustive['rows']:.0f} trials of every class (dashed), within "
        f"{within:g} points,\nfor 1/{ratio:.0f} of the evaluations; intervals are wider than most "
        f"differences between methods ({n:,} answers each)"
    )


def _curve(axes: Any, points: list[dict[str, Any]], key: str, method: str, n: int) -> None:
    """The settings of one method, from cheap to costly."""
    if not points:
        return
    shares = [accuracy(np.arange(n) < round(p["accuracy"] * n)) for p in points]
    value, low, high = (100 * np.array([getattr(s, end) for s in shares]) for end in ("value", "low", "high"))
    colour, x = colour_of(method), [p[key] for p in points]
    axes.plot(x, value, "o-", color=colour, label=method, markersize=4, linewidth=1.4)
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
