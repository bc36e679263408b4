"""Noise: the same for all classes or not, and drawn from narrower distributions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln, ndtr, ndtri

from ...demo.style import BLUE, new_figure
from ...metrics import accuracy, accuracy_difference
from ...reranking.allocation import FixedTrials
from ...reranking.fusion import Fusion
from ...reranking.trials import TrialPlan
from ...utils.progress import progress_bar
from ..errors_by_objective import AllErrors
from ..study import Study
from .drawing import Figure, drawn
from .tier_2 import right_by_error
from .wording import against, as_list, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["CHANGES", "noise"]

IMAGES, TRIALS = 100, 8
"""Test images at most, and trials, that the denoiser is asked about again."""

SHARED = "normal, shared by all classes"

OWN = "normal, one for each class"


def noise(study: Study) -> Figure:
    """Accuracy of tier 2 alone when each class has noise of its own, and when noise is drawn otherwise.

    It is the one figure here that asks the denoiser again: a few test images, chosen by chance, in the first of the
    recorded trials. The shared noise is the recorded one.
    """
    clf, plan = study.clf, study.recording
    chosen = np.array(study.examples(np.ones(len(study.test), dtype=bool), IMAGES))
    recorded, items = study.test.select(chosen).first(TRIALS), study.test_items.select(chosen)
    ask = AllErrors(clf.reranker(FixedTrials(plan.n_trials), Fusion()), clf.classes_, ["l2"])
    shape, trials = clf.denoiser_.shape, np.arange(recorded.n_trials)

    def asked(change: Callable[[np.ndarray], np.ndarray], seed: int, candidates: np.ndarray) -> np.ndarray:
        ask.plan = _ChangedNoise(plan.n_trials, shape, seed, change)
        return ask(items.images, candidates, trials)[..., 0]

    columns = np.split(recorded.candidates, recorded.candidates.shape[1], axis=1)
    with progress_bar(total=len(CHANGES) + len(columns), desc="noise", unit="pass", show=study.progress) as bar:
        tables = {SHARED: recorded.errors["l2"]}
        own = []
        for number, column in enumerate(columns, 1):
            own.append(asked(np.asarray, plan.seed + number, column))
            bar.update()
        tables[OWN] = np.concatenate(own, axis=2)
        for name, change in CHANGES.items():
            tables[name] = asked(change, plan.seed, recorded.candidates)
            bar.update()
    weights = study.weighting(recorded.t, recorded.alpha, recorded.sigma)
    right = {
        name: right_by_error(replace(recorded, errors={"l2": table}), slice(None), weights)
        for name, table in tables.items()
    }
    rows = [
        {
            "noise": name,
            "accuracy": as_list(accuracy(r)),
            "difference": as_list(accuracy_difference(r, right[SHARED])),
        }
        for name, r in right.items()
    ]
    title = (
        f"{len(chosen)} images, {len(trials)} trials; {SHARED}, has {percent(right[SHARED].mean())}; "
        f"{against(SHARED, right)}"
    )
    return Figure("noise", title, "Figure 2 and Table 12 of arXiv 2303.16203", rows, drawn(lambda: _draw(rows)))


class _ChangedNoise(TrialPlan):
    """Trials of the same times whose noise `[m, *shape]` is changed before it is used."""

    def __init__(
        self, n_trials: int, shape: Sequence[int], seed: int, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(n_trials, shape, seed)
        self._change = change

    def noise(self, positions: np.ndarray) -> np.ndarray:
        return self._change(super().noise(positions)).astype(np.float32)


def _truncated(noise: np.ndarray, limit: float) -> np.ndarray:
    """The normal distribution within ±limit, by the quantiles that standard normal noise has in the whole one."""
    low = ndtr(-limit)
    return ndtri(low + ndtr(noise.astype(float)) * (1 - 2 * low))


def _normed(noise: np.ndarray) -> np.ndarray:
    """Noise `[m, *shape]` scaled to the norm that standard normal noise is expected to have: √2 Γ((d+1)/2) / Γ(d/2)."""
    size = noise[0].size
    expected = np.sqrt(2) * np.exp(gammaln((size + 1) / 2) - gammaln(size / 2))
    norms = np.sqrt(np.square(noise).sum(axis=tuple(range(1, noise.ndim)), keepdims=True))
    return noise * expected / norms


CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": np.zeros_like,
    "truncated to [-1, 1]": lambda noise: _truncated(noise, 1.0),
    "truncated to [-2.5, 2.5]": lambda noise: _truncated(noise, 2.5),
    "of the expected norm": _normed,
}
"""Table 12 of arXiv 2303.16203."""


def _draw(rows: Sequence[Any]) -> "Drawing":
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    value, low, high = 100 * np.array([row["accuracy"] for row in rows]).T
    places = np.arange(len(rows))[::-1]
    axes.errorbar(value, places, xerr=[value - low, high - value], fmt="o", color=BLUE, markersize=5)
    axes.set_yticks(places, [row["noise"] for row in rows])
    axes.set_xlabel("accuracy, % (95 % interval)")
    return figure
