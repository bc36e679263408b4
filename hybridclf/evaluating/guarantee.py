"""Settings with a guarantee on what stopping early costs, from the images to calibrate on, held to the others."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..denoising.weighting import resolve_weighting
from ..estimator import HybridClassifier
from ..fitting.calibration import calibrate
from ..fitting.guarantee import Guarantee, Replays, check_enough, find_guarantee, fit_and_test
from ..reranking.allocation import FixedTrials, Race
from ..reranking.trials import INFORMATIVE_TRIALS
from .methods import Method, calibrated
from .recording import Recording
from .scores import Difference, Score

__all__ = ["Bound", "HeldToIt", "bounded", "check_bound"]


class Bound(NamedTuple):
    """Accuracy that stopping early may cost at most, and the probability that it costs more, both in (0, 1)."""

    max_loss: float
    delta: float


@dataclass(frozen=True)
class HeldToIt:
    """A guarantee, and what the settings that have it cost and save on the test images.

    Attributes
    ----------
    guarantee : Guarantee
        Found on the images to calibrate on.
    difference : Difference
        Settings that have it against the exhaustive answer with the same fusion, on the test images.
    evaluations, exhaustive_evaluations : float
        Evaluations per test image of both.
    line : str
        Python that gives a classifier such settings; X and y are images that neither tier was trained on.
    """

    guarantee: Guarantee
    difference: Difference
    evaluations: float
    exhaustive_evaluations: float
    line: str

    @classmethod
    def of(cls, guarantee: Guarantee, difference: Difference, early: Score, exhaustive: Score) -> "HeldToIt":
        """The guarantee with both answers' scores on the test images."""
        line = f"clf.calibrate(X, y, max_loss={guarantee.max_loss:g}, delta={guarantee.delta:g})"
        return cls(guarantee, difference, early.evaluations, exhaustive.evaluations, line)

    @property
    def saved(self) -> float:
        """Share of the exhaustive answer's evaluations that are saved on the test images, in [0, 1]."""
        return 1 - self.evaluations / max(self.exhaustive_evaluations, 1e-12)

    def __str__(self) -> str:
        gain = self.difference.accuracy
        points = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*(100 * v for v in (gain.value, gain.low, gain.high)))
        return (
            f"{self.guarantee} On the test images it has {points} of accuracy against the exhaustive answer "
            f"({self.difference.broken} broken, {self.difference.fixed} fixed), for {self.evaluations:.1f} evaluations "
            f"each instead of {self.exhaustive_evaluations:,.0f}."
        )


def check_bound(clf: HybridClassifier, groups: np.ndarray, bound: Bound) -> None:
    """Check that the images to calibrate on, of groups `[n]`, could show a bound at all.

    Raises
    ------
    InvalidInputError
        If they are too few; the error says how many would do.
    """
    check_enough(len(fit_and_test(len(groups), clf._seed, groups)[1]), *bound)


def bounded(
    clf: HybridClassifier, calibration: Recording, bound: Bound, progress: bool = False
) -> tuple[Guarantee, list[Method]]:
    """Find what `clf.calibrate(X, y, max_loss=…, delta=…)` finds, by replays of a recording.

    The exhaustive answer is that of all recorded trials, 64 at most, of all recorded candidates.

    Parameters
    ----------
    clf : HybridClassifier
        Both tiers; it is not changed.
    calibration : Recording
        Labelled images that neither tier was trained on: a third fits the fusion, the others test the settings, one of
        each group.
    bound : Bound
        What is asked for.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Guarantee
        The cheapest settings that passed.
    list of Method
        The exhaustive answer, and these settings.

    Raises
    ------
    InvalidInputError
        If there is no image to fit or to test on with its right class among the candidates.
    """
    calibration, weighting = calibration.first(INFORMATIVE_TRIALS), resolve_weighting(clf._weighting)
    parts = fit_and_test(len(calibration), clf._seed, calibration.groups)
    ordering, testing = (calibration.select(part).for_fitting(clf._objective) for part in parts)
    allocation = Race() if clf.allocation is None else clf.allocation
    fitted = calibrate(ordering, clf.classes_, allocation, clf.top_k, weighting, clf._seed)
    order_on, test_on = (Replays.of(part, fitted, clf.classes_, weighting) for part in (ordering, testing))
    found = find_guarantee(order_on, test_on, *bound, progress)
    n_trials, k = calibration.n_trials, calibration.candidates.shape[1]
    settings = {
        "hybrid, exhaustive": (FixedTrials(n_trials), k),
        f"hybrid, bound of {100 * bound.max_loss:g} points": (found.allocation, found.top_k),
    }
    methods = [calibrated(name, fitted, *own, clf._objective, clf._weighting) for name, own in settings.items()]
    return found, [replace(method, fusion=fitted.fusion) for method in methods]  # off where tier 2 does not pay
