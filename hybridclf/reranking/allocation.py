"""Allocations: which candidates get the next trial, and when to stop.

An allocation knows no models. It says after how many trials an image is judged again (`next_decision`) and, at that
moment, which candidates stay (`survivors`). An image is done when one candidate is left or `max_trials` are used up.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from scipy.special import stdtr

from ..errors import InvalidInputError, InvalidTypeError
from ..utils.bounds import check_number, check_whole
from .evidence import Evidence

__all__ = ["PRESETS", "Allocation", "FixedTrials", "PairedTTest", "Race", "Staged", "check_allocation"]


class Allocation(ABC):
    """Rule that decides which candidates get further trials, and when an image is done.

    The reranker calls it with many images at once. Subclasses are small, frozen and know no models.
    """

    stopped_by: ClassVar[str] = "confident"
    """Reason of stopping for an image that has one candidate left."""

    fitted_order: ClassVar[bool] = False
    """True if trials may come in a fitted order, most informative timesteps first, instead of the even one."""

    max_trials: int
    """Trials an image gets at most."""

    @abstractmethod
    def next_decision(self, n_trials: np.ndarray) -> np.ndarray:
        """Number of trials at which images that have seen `n_trials` `[m]` are judged next, int `[m]`."""

    @abstractmethod
    def survivors(self, evidence: Evidence) -> np.ndarray:
        """Mask of the candidates that stay, bool `[m, K]`; at least one per image.

        The reranker keeps the leader of the posterior in any case: errors alone say nothing of the prior.
        """

    def limited_to(self, n_trials: int) -> "Allocation":
        """The same rule with no more than T trials, for errors of which so many were recorded.

        A rule that does not say how it is limited becomes T trials of every candidate.
        """
        return self if self.max_trials <= n_trials else FixedTrials(n_trials)


@dataclass(frozen=True)
class FixedTrials(Allocation):
    """Every candidate gets n trials: Algorithm 1 of arXiv 2303.16203.

    Parameters
    ----------
    n : int
        Trials per candidate, at least 1.
    """

    n: int

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1)

    @property
    def max_trials(self) -> int:  # type: ignore[override]
        """Trials per candidate, which are all it takes."""
        return self.n

    def next_decision(self, n_trials: np.ndarray) -> np.ndarray:
        """Always n: nothing is decided earlier."""
        return np.full_like(n_trials, self.n)

    def survivors(self, evidence: Evidence) -> np.ndarray:
        """Every candidate stays."""
        return evidence.alive


def _listed(name: str, numbers: Any) -> tuple[Any, ...]:
    if not isinstance(numbers, Iterable):
        raise InvalidTypeError(f"{name} must be a sequence of whole numbers such as (5, 1), got {numbers!r}")
    return tuple(numbers)


@dataclass(frozen=True)
class Staged(Allocation):
    """Stages of trials, each followed by keeping the classes with the lowest mean error: Algorithm 2 of 2303.16203.

    Parameters
    ----------
    keep : sequence of int
        Number of classes that stay after each stage ("KeepList").
    trials : sequence of int
        Trials that each remaining class has had by the end of each stage, earlier stages included ("TrialList");
        increasing.
    """

    keep: Sequence[int]
    trials: Sequence[int]
    stopped_by: ClassVar[str] = "budget"

    def __post_init__(self) -> None:
        keep, trials = _listed("keep", self.keep), _listed("trials", self.trials)
        object.__setattr__(self, "keep", keep)  # tuples, so that equal plans compare and hash equal
        object.__setattr__(self, "trials", trials)
        if not keep or len(keep) != len(trials):
            raise InvalidInputError(f"Staged needs as many keeps as trials, at least one; got {keep} and {trials}")
        for kept in keep:
            check_whole("each keep", kept, 1)
        for before, now in pairwise((0, *trials)):
            check_whole("each trials (they increase)", now, before + 1)

    @classmethod
    def preset(cls, dataset: str) -> "Staged":
        """The stages that Table 6 of arXiv 2303.16203 gives for a data set, one of `PRESETS`.

        Raises
        ------
        InvalidInputError
            For any other name.
        """
        name = str(dataset).lower().replace("-", "")
        if name not in PRESETS:
            raise InvalidInputError(f"there is no preset {dataset!r}; Table 6 has {', '.join(PRESETS)}")
        return cls(*PRESETS[name])

    @property
    def max_trials(self) -> int:  # type: ignore[override]
        """Trials of the class that stays to the end."""
        return self.trials[-1]

    def next_decision(self, n_trials: np.ndarray) -> np.ndarray:
        """The end of the current stage."""
        ends = np.asarray(self.trials)
        return ends[np.minimum(np.searchsorted(ends, n_trials, side="right"), len(ends) - 1)]

    def survivors(self, evidence: Evidence) -> np.ndarray:
        """The classes with the lowest mean errors, as many as the stage that has ended keeps."""
        rank = evidence.mean_errors.argsort(axis=1, kind="stable").argsort(axis=1)
        ended = np.searchsorted(self.trials, evidence.n_trials)
        limit = np.where(evidence.n_trials == 0, rank.shape[1], np.asarray(self.keep)[ended])
        return evidence.alive & (rank < limit[:, None])

    def evaluations(self, n_classes: int) -> int:
        """Evaluations of one image with that many classes, if no prior keeps a class of high errors in."""
        spent, alive, done = 0, n_classes, 0
        for keep, trials in zip(self.keep, self.trials, strict=True):
            spent += alive * (trials - done) if alive > 1 else 0  # one class left: nothing can change any more
            alive, done = min(alive, keep), trials
        return spent


PRESETS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "food101": ((20, 10, 5, 1), (20, 50, 100, 500)),
    "cifar10": ((5, 1), (50, 500)),
    "aircraft": ((20, 10, 5, 1), (20, 50, 100, 500)),
    "pets": ((5, 1), (25, 250)),
    "flowers102": ((20, 10, 5, 1), (20, 50, 100, 500)),
    "stl10": ((5, 1), (100, 500)),
    "imagenet": ((500, 50, 10, 1), (50, 100, 500, 1000)),
    "objectnet": ((25, 10, 5, 1), (50, 100, 500, 1000)),
}
"""(keep, trials) of Table 6 of arXiv 2303.16203, by data set."""


@dataclass(frozen=True)
class PairedTTest(Allocation):
    """Drops a class once its errors are significantly above the best class's: Algorithm 1 of arXiv 2303.15233.

    The test is a two-sided paired t-test on the trials that both classes have seen.

    Parameters
    ----------
    p : float
        Classes are dropped below this p-value, in (0, 1).
    min_trials : int
        Trials before the first test, at least 2.
    max_trials : int
        Trials after which the lowest mean error wins.
    """

    p: float = 0.002
    min_trials: int = 20
    max_trials: int = 2000

    def __post_init__(self) -> None:
        check_number("p", self.p, above=0, below=1)
        check_whole("min_trials", self.min_trials, 2)
        check_whole("max_trials", self.max_trials, self.min_trials)

    def limited_to(self, n_trials: int) -> Allocation:
        """The same test within T trials; with a single one there is nothing to test."""
        most = min(self.max_trials, n_trials)
        if most < 2:
            return FixedTrials(most)
        return replace(self, min_trials=min(self.min_trials, most), max_trials=most)

    def next_decision(self, n_trials: np.ndarray) -> np.ndarray:
        """Number of trials at the next decision: `min_trials`, then one more each time."""
        return np.maximum(n_trials + 1, self.min_trials)

    def survivors(self, evidence: Evidence) -> np.ndarray:
        """The best class and all that the t-test does not tell from it."""
        best = evidence.mean_errors.argmin(axis=1)
        is_best = np.arange(evidence.alive.shape[1]) == best[:, None]
        worse = self._p_values(evidence, best) < self.p
        tested = (evidence.n_trials >= self.min_trials)[:, None]
        return evidence.alive & (is_best | ~(tested & worse))

    @staticmethod
    def _p_values(evidence: Evidence, best: np.ndarray) -> np.ndarray:
        """Two-sided p-values `[m, K]` of paired t-tests against the best `[m]`; 1 where there is no test."""
        n = evidence.n_trials[:, None]
        mean, variance = evidence.differences(best)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = mean / np.sqrt(variance / n)
            return np.nan_to_num(2 * stdtr(n - 1, -np.abs(t)), nan=1.0)


@dataclass(frozen=True)
class Race(Allocation):
    """Stops as soon as prior and evidence together are sure: the default where the fusion is calibrated.

    After each trial, candidates whose posterior is below (1 - confidence) / number of candidates are dropped. An image
    is done when the leader's posterior reaches `confidence`, or one candidate is left. The prior alone can be that
    sure; then nothing is evaluated. A fitted order picks the most informative of `trials.INFORMATIVE_TRIALS` trials.

    Parameters
    ----------
    confidence : float
        Posterior at which the leader wins, in (0, 1).
    max_trials : int
        Trials after which the leader wins anyway, at least 1.
    """

    confidence: float = 0.99
    max_trials: int = 16
    fitted_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence, above=0, below=1)
        check_whole("max_trials", self.max_trials, 1)

    def limited_to(self, n_trials: int) -> "Race":
        """The same race within T trials."""
        return replace(self, max_trials=min(self.max_trials, n_trials))

    def next_decision(self, n_trials: np.ndarray) -> np.ndarray:
        """Number of trials at the next decision: one more each time."""
        return n_trials + 1

    def survivors(self, evidence: Evidence) -> np.ndarray:
        """The leader, and while it is not sure, all candidates that could still win."""
        posterior = np.where(evidence.alive, evidence.posterior, -1.0)
        sure = posterior.max(axis=1, keepdims=True) >= self.confidence
        # all that is dropped together holds less than the probability that the leader may be wrong
        matters = posterior >= (1 - self.confidence) / evidence.n_candidates[:, None]
        return evidence.alive & (evidence.leads | (matters & ~sure))


def check_allocation(allocation: Any) -> None:
    """Check that an allocation is one, or None.

    Raises
    ------
    InvalidTypeError
        If not.
    """
    if allocation is not None and not isinstance(allocation, Allocation):
        raise InvalidTypeError(
            f"allocation must be an object such as Race() or Staged((5, 1), (50, 500)), got {allocation!r}"
        )
