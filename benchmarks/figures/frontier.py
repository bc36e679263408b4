"""Figure 2: what each allocation costs to be as accurate as the exhaustive one, on the same weights (digits).

Every method is asked about the same test images with tier 1's prior (its candidates and the fitted fusion) and
without (every class, evidence alone; a race keeps its fitted fusion, under a uniform prior). FLOPs are the denoiser's,
times include tier 1 where its prior is used.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from timing import flops, medians

from hybridclf import Allocation, FixedTrials, Fusion, HybridClassifier, PairedTTest, Race, RerankResult, Staged
from hybridclf.demo import Digits, split_digits

from .common import COLOURS, Line, styled

TOLERANCE = 0.002
"""How far below the exhaustive accuracy still counts as the same."""

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
    """One run per split."""
    return {"tolerance": TOLERANCE, "runs": [run(seed, sizes, device) for seed in sizes.seeds]}


def run(seed: int, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Fit once; ask every setting; then time, in turn, the cheapest of each method that is accurate enough."""
    data = split_digits(seed, sizes.n_images)
    clf = HybridClassifier(cv=sizes.cv, max_iter=sizes.max_iter, device=str(device), random_state=seed)
    clf.fit(data.train, data.train_labels)
    asked = [(setting, prior) for prior in PRIOR for setting in sizes.settings]
    points = [point(clf, data, *question) for question in asked]
    reached = cheapest(points, points[0]["accuracy"] - TOLERANCE)
    calls = [partial(ask, clf, data.test, *asked[i]) for i in (0, *reached.values())]
    seconds = (medians(*calls, repeats=sizes.repeats) / len(data.test)).tolist()
    times = {name: {"seconds": s, "time_ratio": seconds[0] / s} for name, s in zip(reached, seconds[1:], strict=True)}
    return {
        "seed": seed,
        "points": points,
        "exhaustive": points[0] | {"seconds": seconds[0]},
        "reached": {name: points[i] | times[name] for name, i in reached.items()},
    }


def ask(clf: HybridClassifier, images: np.ndarray, allocation: Allocation, prior: bool) -> list[RerankResult]:
    """What an allocation makes of the images, tier 1's part included where its prior is used."""
    if prior:
        return clf.reranker(allocation).rerank(images, *clf.propose(images))
    fusion = None if isinstance(allocation, Race) else Fusion()
    return clf.reranker(allocation, fusion).rerank(images, [clf.classes_.tolist()] * len(images))


def point(clf: HybridClassifier, data: Digits, allocation: Allocation, prior: bool) -> dict[str, Any]:
    """Accuracy of a setting, and its mean cost per image."""
    results: list[RerankResult] = []
    spent = flops(lambda: results.extend(ask(clf, data.test, allocation, prior)))
    labels = np.array([r.ranking[0] for r in results])
    return {
        "method": f"{type(allocation).__name__} {PRIOR[prior]}",
        "setting": repr(allocation),
        "accuracy": float((labels == data.test_labels).mean()),
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
    """The exhaustive cost over each method's, medians over splits; a method that fails on a split is not reached."""
    names = [f"{method} {prior}" for prior in PRIOR.values() for method in METHODS]
    return [
        Line(f"exhaustive {what} over those of {name}", _ratio(report["runs"], name, key))
        for name in names
        for what, key in (("evaluations", "evaluations"), ("FLOPs", "flops"), ("seconds", "seconds"))
    ]


def _ratio(runs: list[dict[str, Any]], name: str, key: str) -> float:
    if not all(name in run["reached"] for run in runs):
        return float("nan")
    return float(np.median([run["exhaustive"][key] / run["reached"][name][key] for run in runs]))


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Accuracy against evaluations and against FLOPs, means over splits; dashed lines are without a prior."""
    figure = Figure(figsize=(11, 4.5))
    panels = figure.subplots(1, 2, sharey=True)
    points = [run["points"] for run in report["runs"]]
    for axes, key, what in zip(panels, ("evaluations", "flops"), ("evaluations", "FLOPs"), strict=True):
        for name in dict.fromkeys(p["method"] for p in points[0]):
            _curve(axes, points, name, key)
        exhaustive = 100 * np.mean([run["exhaustive"]["accuracy"] for run in report["runs"]])
        axes.axhspan(exhaustive - 100 * report["tolerance"], exhaustive, color="#EEEEEE", zorder=0)
        axes.set(xscale="log", xlabel=f"{what} per image")
    panels[0].set(ylabel="accuracy, %", title="grey: within 0.2 points of the exhaustive answer")
    panels[1].legend(fontsize=8)
    return figure


def _curve(axes: Any, points: list[list[dict[str, Any]]], name: str, key: str) -> None:
    """The settings of one method, from cheap to costly."""
    mine = [[p for p in run if p["method"] == name] for run in points]
    cost = np.mean([[p[key] for p in run] for run in mine], axis=0)
    accuracy = 100 * np.mean([[p["accuracy"] for p in run] for run in mine], axis=0)
    order, colour = cost.argsort(), COLOURS[METHODS.index(name.split()[0])]
    dashes = "o-" if name.endswith(PRIOR[True]) else "o--"
    axes.plot(cost[order], accuracy[order], dashes, color=colour, label=name, markersize=4, linewidth=1.2)
