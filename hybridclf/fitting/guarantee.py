"""A guarantee on what stopping early costs: Learn then Test (arXiv 2110.01052) on replayed races.

Settings are ordered on one part of the images, from the one that differs least from the exhaustive answer to the
cheapest. On the other part they are tested in that order, each at level δ, until one fails: fixed-sequence testing,
under which the probability that any setting passes whose loss is above the bound is at most δ.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple, Self

import numpy as np
from scipy.stats import beta, binom
from tqdm.auto import tqdm

from ..denoising.weighting import Weighting
from ..errors import InvalidInputError
from ..reranking.allocation import Allocation, FixedTrials, Race
from ..reranking.fusion import Fusion
from .calibration import Calibration, in_order
from .recording import Recording
from .replay import replay

__all__ = [
    "Guarantee",
    "Replays",
    "Setting",
    "check_enough",
    "find_guarantee",
    "fit_and_test",
    "p_value",
    "settings_of",
]

FIT_SHARE = 1 / 3
"""Share of the images that the fusion is fitted on and settings are ordered on; the others test them."""

CONFIDENCE = (0.9, 0.95, 0.99, 0.999)
TRIALS = (1, 2, 4, 8, 16, 32, 64)
CANDIDATES = (3, 5, 10, 20)

NUISANCE = 1e-3
"""Probability that the share of repaired images is outside the interval over which a p-value is maximised."""


class Setting(NamedTuple):
    """Settings of a race; confidence 1 stands for all trials of all candidates."""

    confidence: float
    max_trials: int
    top_k: int

    @property
    def allocation(self) -> Allocation:
        """The race."""
        return FixedTrials(self.max_trials) if self.confidence == 1 else Race(self.confidence, self.max_trials)


class Cost(NamedTuple):
    """Images of n that the exhaustive answer has right and an early one wrong, and the other way; evaluations each."""

    broken: int
    fixed: int
    evaluations: float


@dataclass(frozen=True)
class Guarantee:
    """A bound on the accuracy that stopping early costs.

    It is against all trials of all candidates (tier 1's first twenty at most).

    Attributes
    ----------
    max_loss : float
        Bound on the loss of accuracy, in (0, 1).
    delta : float
        Probability, over draws of the images, that the loss is above the bound.
    n_images : int
        Images that it was tested on; fusion and order of the settings come from others.
    confidence, max_trials, top_k : float, int, int
        Settings of the race; a confidence of 1 stands for all trials, as no cheaper setting passed.
    broken, fixed : int
        Of these images, those that the exhaustive answer has right and this race wrong, and the other way.
    evaluations, exhaustive_evaluations : float
        Evaluations per image of the race, and of the exhaustive answer.
    """

    max_loss: float
    delta: float
    n_images: int
    confidence: float
    max_trials: int
    top_k: int
    broken: int
    fixed: int
    evaluations: float
    exhaustive_evaluations: float

    @property
    def allocation(self) -> Allocation:
        """The race with these settings."""
        return Setting(self.confidence, self.max_trials, self.top_k).allocation

    @property
    def saved(self) -> float:
        """Share of the exhaustive answer's evaluations that are saved, in [0, 1]."""
        return 1 - self.evaluations / max(self.exhaustive_evaluations, 1e-12)

    def __str__(self) -> str:
        if not self.exhaustive_evaluations:
            return (
                f"Tier 2 is asked about none of the {self.n_images} images of the test: there is nothing to stop early."
            )
        if self.confidence == 1:
            return (
                f"No race passed the test on {self.n_images} images that it loses at most {100 * self.max_loss:g} "
                f"points: every candidate of {self.top_k} gets all {self.max_trials} trials. More images would help."
            )
        trials = "1 trial" if self.max_trials == 1 else f"{self.max_trials} trials"
        return (
            f"Stopping early costs at most {100 * self.max_loss:g} points of accuracy, with probability "
            f"{100 * (1 - self.delta):g} % (tested on {self.n_images} images: {self.broken} broken, {self.fixed} "
            f"fixed): {self.evaluations:.1f} evaluations each instead of {self.exhaustive_evaluations:.0f}, with "
            f"confidence {self.confidence:g}, at most {trials} and {self.top_k} candidates."
        )


@dataclass(frozen=True)
class Replays:
    """Recorded errors of labelled images, to be replayed under any setting.

    Attributes
    ----------
    fusion : Fusion
        Makes the posterior.
    log_prior : float array `[n, k]`
        Tier 1's log-probabilities of the recorded candidates, flattened as the classifier would.
    errors : float array `[n, T, k]`
        Weighted errors, most informative trials first.
    y : int array `[n]`
        Position of the right class.
    asked : bool array `[n]`
        Images that tier 2 is asked about.
    n_images : int
        Images in all: of those that were not recorded, no setting has the right answer and the exhaustive one neither.
    ceilings : float array `[T + 1]` or None
        Highest usual sums of errors after 0, 1, … T trials, beyond which tier 1 answers.
    """

    fusion: Fusion
    log_prior: np.ndarray
    errors: np.ndarray
    y: np.ndarray
    asked: np.ndarray
    n_images: int
    ceilings: np.ndarray | None = None

    @classmethod
    def of(cls, recording: Recording, fitted: Calibration, classes: np.ndarray, weighting: Weighting | None) -> Self:
        """The replays of a recording, with what was fitted; arguments as for `calibrate`."""
        log_prior, at = recording.log_prior, recording.positions
        if fitted.drift is not None and recording.drift is not None:
            log_prior = fitted.drift.flattened(log_prior, recording.drift.clean[at])
        leader = classes[recording.all_log_prior[at].argmax(axis=1)].tolist()
        asked = np.array([fitted.fusion.asks(label) for label in leader], dtype=bool)
        if fitted.unusual_alone and fitted.drift is not None and recording.drift is not None:
            asked &= fitted.drift.unusual(recording.drift.clean[at])
        errors, ceilings = in_order(recording, fitted, Race(), weighting)
        fusion = replace(fitted.fusion, pays=True, harmed=())  # candidates have their positions for labels here
        return cls(fusion, log_prior, errors, recording.y, asked, len(recording.all_y), ceilings)

    @property
    def exhaustive(self) -> Setting:
        """All trials of all candidates."""
        return Setting(1.0, *self.errors.shape[1:])

    def right(self, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        """Right answers, bool `[n]`, and evaluations, int `[n]`."""
        allocation = setting.allocation
        posterior, evaluations = replay(
            self.fusion, allocation, self.log_prior, self.errors, setting.top_k, self.ceilings
        )
        return posterior.argmax(axis=1) == self.y, np.where(self.asked, evaluations, 0)

    def costs(self, settings: list[Setting], progress: bool = False) -> list[Cost]:
        """Costs of each setting, beside those of the exhaustive answer."""
        reference, _ = self.right(self.exhaustive)
        costs = []
        for setting in tqdm(settings, desc="replay settings", unit="setting", leave=False, disable=not progress):
            right, evaluations = self.right(setting)
            broken, fixed = (int((self.asked & m).sum()) for m in (reference & ~right, right & ~reference))
            costs.append(Cost(broken, fixed, float(evaluations.mean())))
        return costs


def fit_and_test(n: int, seed: int, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split n images: positions of the third to fit the fusion on, and of those to test settings on.

    Chance alone decides, so that what is tested is drawn as all images were: a split by class would never test the only
    image of one. Tests take independent images: of those of one group `[n]` there is one, by chance.
    """
    order = np.random.default_rng(seed).permutation(n)
    if groups is None:
        n_fitted = max(1, int(n * FIT_SHARE))
        return np.sort(order[:n_fitted]), np.sort(order[n_fitted:])
    names, first = np.unique(groups[order], return_index=True)
    chosen = order[np.sort(first)]  # one image of each group, both in an order of chance
    n_fitted = max(1, int(len(names) * FIT_SHARE))
    return np.flatnonzero(np.isin(groups, groups[chosen[:n_fitted]])), np.sort(chosen[n_fitted:])


def check_enough(n: int, max_loss: float, delta: float) -> None:
    """Check that a test on n images could pass at all.

    Raises
    ------
    InvalidInputError
        If not even a race without a single broken image would; the error says how many images would do.
    """
    needed = math.ceil(math.log(delta) / math.log1p(-max_loss))
    if n < needed:
        total = math.ceil(needed / (1 - FIT_SHARE)) + 1
        raise InvalidInputError(
            f"max_loss={max_loss:g} with delta={delta:g} takes {needed:,} images to test it on, and with the third "
            f"that the fusion is fitted on {total:,} in all; {n:,} are left to test it on: give more images, or accept "
            "a larger max_loss or delta"
        )


def find_guarantee(order_on: Replays, test_on: Replays, max_loss: float, delta: float, progress: bool) -> Guarantee:
    """The cheapest settings that pass the tests in sequence; the exhaustive ones if none does.

    Parameters
    ----------
    order_on, test_on : Replays
        Images to order the settings on, and others to test them on.
    max_loss, delta : float
        Bound and level, in (0, 1).
    progress : bool
        Show a progress bar.
    """
    exhaustive = test_on.exhaustive
    asked = float(test_on.asked.mean()) if len(test_on.asked) else 1.0  # what is off, is off for both
    # where tier 2 is asked about nothing, all settings are as good, and none is known to be
    path = _path(order_on, max_loss, progress) if asked else []
    all_of_them = exhaustive.max_trials * exhaustive.top_k * asked
    best, cost = exhaustive, Cost(0, 0, all_of_them)
    for (setting, net), tested in zip(path, test_on.costs([s for s, _ in path]), strict=True):
        if p_value(tested, test_on.n_images, max_loss, net) > delta:
            break
        best, cost = setting, tested
    return Guarantee(max_loss, delta, test_on.n_images, *best, *cost, exhaustive_evaluations=all_of_them)


def settings_of(replays: Replays) -> list[Setting]:
    """All settings that are compared, none with more trials or candidates than were recorded."""
    _, n_trials, k = replays.exhaustive
    trials, candidates = ({min(v, most) for v in values} for values, most in ((TRIALS, n_trials), (CANDIDATES, k)))
    return [Setting(*s) for s in product(CONFIDENCE, sorted(trials), sorted(candidates))]


def _path(replays: Replays, max_loss: float, progress: bool) -> list[tuple[Setting, bool]]:
    """Settings in the order in which they are tested, each with the test that suits it better.

    They are those of which no cheaper one breaks as few images, the dearest first: costs (3, 1, 0 broken for 2, 5, 9
    evaluations) make a path of 9, 5, 2 evaluations, and 2 broken for 7 evaluations are left out.
    """
    settings = settings_of(replays)
    costs = replays.costs(settings, progress)
    path: list[tuple[Setting, bool]] = []
    fewest = math.inf
    for i in sorted(range(len(settings)), key=lambda i: (costs[i].evaluations, costs[i].broken)):
        if costs[i].broken < fewest:
            fewest = costs[i].broken
            net = p_value(costs[i], replays.n_images, max_loss, True)
            path.append((settings[i], net < p_value(costs[i], replays.n_images, max_loss, False)))
    return path[::-1]


def p_value(cost: Cost, n: int, max_loss: float, net: bool) -> float:
    """P-value of the hypothesis that a setting loses more than `max_loss`, from what it cost on n images.

    Not net, repaired images do not count: the broken ones are binomial, and the test is exact. Net, accuracy lost is
    the share p of broken images minus the share q of repaired ones. Of their difference the distribution depends on q
    too; the p-value is the largest over a confidence interval of q, plus the probability that q lies outside (Berger
    and Boos, 1994).

    Parameters
    ----------
    cost : Cost
        Broken and repaired images.
    n : int
        Images.
    max_loss : float
        In (0, 1).
    net : bool
        Repaired images make up for broken ones.
    """
    if not net:
        return float(binom.cdf(cost.broken, n, max_loss))
    return _net_p_value(cost.broken, cost.fixed, n, max_loss)


@lru_cache(maxsize=2**14)
def _net_p_value(broken: int, fixed: int, n: int, max_loss: float) -> float:
    """The p-value of the net loss; many settings break and repair as many images."""
    low = beta.ppf(NUISANCE / 2, fixed, n - fixed + 1) if fixed else 0.0
    high = beta.ppf(1 - NUISANCE / 2, fixed + 1, n - fixed) if fixed < n else 1.0
    q = np.linspace(low, min(high, (1 - max_loss) / 2), 33)[:, None]
    # q: [Q, 1], count: [F]; given how many are repaired, the broken ones are binomial among the others
    count = np.arange(min(n, int(binom.ppf(1 - 1e-9, n, q.max()))) + 1)
    share = np.minimum((q + max_loss) / (1 - q), 1.0)
    tail = binom.pmf(count, n, q) * binom.cdf(count + broken - fixed, n - count, share)
    return float(min(1.0, tail.sum(axis=1).max() + NUISANCE))
