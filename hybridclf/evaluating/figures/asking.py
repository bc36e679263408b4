"""Figures that ask the denoiser again: a few test images, the recorded trials, and one thing that is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import BLUE, new_figure
from ...denoising.objectives import Objective
from ...denoising.weighting import uniform_weights
from ...metrics import accuracy, accuracy_difference
from ...reranker import Reranker
from ...reranking.allocation import FixedTrials
from ...reranking.trials import TrialPlan
from ..errors_by_objective import AllErrors
from ..study import Study
from ..wording import against, as_list, percent
from .drawing import Figure, drawn
from .tier_2 import right_by_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["IMAGES", "TRIALS", "Asking"]

IMAGES, TRIALS = 100, 8
"""Test images at most, and trials, that the denoiser is asked about again."""


class Asking:
    """Asks a study's denoiser again about a few test images, chosen by chance, in the first of their recorded trials.

    Parameters
    ----------
    study : Study
        The recording and both tiers.

    Attributes
    ----------
    recorded : Recording
        The recording of these n images and T trials: what was answered the first time.
    images : sequence of n images
        The images, as the classifier reads them.
    """

    def __init__(self, study: Study) -> None:
        chosen = np.array(study.examples(np.ones(len(study.test), dtype=bool), IMAGES))
        self.recorded = study.test.select(chosen).first(TRIALS)
        self.images = study.test_items.select(chosen).images
        self._clf, self._n_trials = study.clf, study.recording.n_trials
        self._weights = study.weighting(self.recorded.t, self.recorded.alpha, self.recorded.sigma)

    def errors(
        self,
        *,
        denoiser: Any = None,
        images: Any = None,
        classes: Sequence[Any] | None = None,
        candidates: np.ndarray | None = None,
        plan: TrialPlan | None = None,
        objectives: Sequence[str] | Mapping[str, Objective] = ("l2",),
    ) -> np.ndarray:
        """Unweighted errors `[n, T, k, m]` under m objectives; all that is not given is as it was recorded.

        Parameters
        ----------
        denoiser : Denoiser, optional
            Another tier 2.
        images : sequence of n images, optional
            Other versions of the images.
        classes : sequence of labels, optional
            Labels that the candidates number.
        candidates : int array `[n, k]`, optional
            Positions of the classes to compare.
        plan : TrialPlan, optional
            Trials with other noise.
        objectives : sequence of str, or functions by name, optional
            Errors between noise and predicted noise.
        """
        stage = Reranker(
            self._clf.denoiser_ if denoiser is None else denoiser,
            allocation=FixedTrials(self._n_trials),
            weighting=uniform_weights,
            batch_size=self._clf.batch_size,
        )
        labels = self._clf.classes_ if classes is None else np.asarray(classes, dtype=object)
        ask = AllErrors(stage, labels, objectives)
        ask.plan = plan or TrialPlan(self._n_trials, stage.denoiser.shape, self.recorded.seed)
        chosen = self.recorded.candidates if candidates is None else candidates
        return ask(self.images if images is None else images, chosen, np.arange(self.recorded.n_trials))

    def right(self, errors: np.ndarray) -> np.ndarray:
        """Images that tier 2 alone answers right by these errors `[n, T, k]`, bool `[n]`."""
        return right_by_error(replace(self.recorded, errors={"l2": errors}), slice(None), self._weights)

    def figure(
        self, name: str, tables: Mapping[str, np.ndarray], baseline: str, reference: str, what: str = ""
    ) -> Figure:
        """Accuracy of tier 2 alone by each table of errors `[n, T, k]`, and its paired difference from the baseline's.

        Parameters
        ----------
        name : str
            Name of the figure, and key of the tables' names in its rows.
        tables : dict of str to array
            Errors by what was changed.
        baseline : str
            Name of the table that all others are compared with.
        reference : str
            Figure or table of a paper.
        what : str
            Stands before the baseline's name in the title.
        """
        right, groups = {key: self.right(table) for key, table in tables.items()}, self.recorded.groups
        rows = [
            {
                name: key,
                "accuracy": as_list(accuracy(own, groups=groups)),
                "difference": as_list(accuracy_difference(own, right[baseline], groups=groups)),
            }
            for key, own in right.items()
        ]
        first = f"{what}{baseline}, has {percent(right[baseline].mean())}"
        title = f"{len(self.images)} images, {self.recorded.n_trials} trials; {first}; "
        title += against(baseline, right, groups)
        return Figure(name, title, reference, rows, drawn(lambda: _draw(name, rows)))


def _draw(name: str, rows: Sequence[Any]) -> "Drawing":
    figure = new_figure(8, 1.2 + 0.32 * len(rows))
    axes = figure.subplots()
    value, low, high = 100 * np.array([row["accuracy"] for row in rows]).T
    places = np.arange(len(rows))[::-1]
    axes.errorbar(value, places, xerr=[value - low, high - value], fmt="o", color=BLUE, markersize=5)
    axes.set_yticks(places, [row[name] for row in rows])
    axes.set_xlabel("accuracy of tier 2 alone, % (95 % interval)")
    return figure
