"""Fitting the fusion, the timestep weights and the order of trials on images that neither tier was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from ..denoising.weighting import BinnedWeights, Weighting, paired_gaps
from ..reranking.allocation import Allocation
from ..reranking.fusion import Fusion
from ..reranking.novelty import UsualErrors
from ..reranking.trials import InformativeOrder, nearest_trials
from .drift import Drift
from .outliers import NoveltyTest, traits_of
from .recording import Copies, Recording
from .replay import replay
from .splitting import cross_fit_parts
from .worth import FEWEST_UNUSUAL, Answers, Worth, harmed_classes

__all__ = [
    "Calibration",
    "CrossFitted",
    "calibrate",
    "cross_answers",
    "cross_fits",
    "fit_calibration",
    "in_order",
    "worth_with",
]

Settings = tuple[Allocation, int | None]
"""Allocation, and number of candidates."""

SHARPNESS = {k: 1.12**k for k in range(-8, 5)}
"""Factors on the evidence's log-scores that may be tried on replayed races, from 0.4 to 1.57, by number of steps."""


@dataclass(frozen=True)
class Calibration:
    """Fusion, timestep weights and order of trials, fitted on labelled images.

    Attributes
    ----------
    fusion : Fusion
        Turns prior and evidence into a posterior.
    weighting : BinnedWeights or None
        Learned timestep weights; None where the weights were given.
    order : InformativeOrder
        Most informative timesteps first.
    n_images : int
        Number of images it was fitted on.
    worth : Worth or None
        Comparison of both tiers with tier 1; None if there was none.
    drift : Drift or None
        Flattens tier 1's prior for images that look unlike these; None for vectors, for fewer than 30 images, and where
        tier 2 is off for all images.
    novelty : NoveltyTest or None
        Tells images that are unlike these; None for vectors, and for fewer than 60 images.
    """

    fusion: Fusion
    weighting: BinnedWeights | None
    order: InformativeOrder
    n_images: int
    worth: Worth | None = None
    drift: Drift | None = None
    novelty: NoveltyTest | None = None

    @property
    def unusual_alone(self) -> bool:
        """True if tier 2 is asked about images that look unlike these alone."""
        return self.worth is not None and self.worth.unusual_alone


def calibrate(
    recording: Recording,
    classes: np.ndarray,
    allocation: Allocation,
    top_k: int | None,
    weighting: Weighting | None,
    seed: int = 0,
) -> Calibration:
    """Fit fusion, weights and order, and compare with tier 1; tier 2 is turned off where it does not pay.

    Parameters
    ----------
    recording : Recording
        Predictions for images that neither tier has seen.
    classes : array `[C]`
        The labels.
    allocation, top_k, weighting
        As for `fit_calibration`.
    seed : int
        Decides the parts of the comparison.
    """
    settings = allocation, top_k
    fitted = fit_calibration(recording, *settings, weighting)
    parts = cross_fits(recording, *settings, weighting, seed)
    answers = cross_answers(recording, parts, settings, weighting)
    off = harmed_classes(answers)
    worth = Worth.of(answers.without(off), classes[off].tolist())
    if not worth.pays:
        unusual = _unusual_answers(recording.copies, parts, settings, weighting) if recording.copies else None
        # of tier 2 as it would be
        worth = replace(Worth.of(answers), pays=False, unusual=None if unusual is None else _on_unusual(unusual))
    on = worth.pays or worth.unusual_alone
    fusion = replace(fitted.fusion, pays=on, harmed=worth.harmed if worth.pays else ())
    drift = Drift.fit(recording.drift, fusion.prior_alone) if recording.drift and on else None
    novelty = _novelty(recording, fitted.order, seed)
    return replace(fitted, fusion=fusion, worth=worth, drift=drift, novelty=novelty)


def worth_with(
    recording: Recording,
    worth: Worth,
    classes: np.ndarray,
    fitted_for: Settings,
    answering: Settings,
    weighting: Weighting | None,
    seed: int = 0,
) -> Worth:
    """Measure a comparison with tier 1 again, where a calibration answers with other settings than it was fitted for.

    The decisions about tier 2 stay: on or off, for unusual images, and for which classes.

    Parameters
    ----------
    recording, classes, weighting, seed
        As for `calibrate`.
    worth : Worth
        The comparison with the settings before.
    fitted_for, answering : (allocation, top_k)
        Settings that the calibration was fitted for, and those that it answers with.
    """
    parts = cross_fits(recording, *fitted_for, weighting, seed)
    answers = cross_answers(recording, parts, answering, weighting)
    off = np.flatnonzero(np.isin(classes, worth.harmed)) if worth.pays else np.array([], dtype=int)
    unusual = worth.unusual
    if unusual is not None and recording.copies is not None:
        again = _unusual_answers(recording.copies, parts, answering, weighting)
        unusual = unusual if again is None else replace(Worth.of(again), pays=unusual.pays)
    return replace(Worth.of(answers.without(off), worth.harmed), pays=worth.pays, unusual=unusual)


def _novelty(recording: Recording, order: InformativeOrder, seed: int) -> NoveltyTest | None:
    """The test of novelty, its errors those of the most informative trial; None if looks are not known."""
    if recording.drift is None:
        return None
    first = recording.errors[:, int(np.argsort(-order.at(recording.t), kind="stable")[0])]
    traits = traits_of(recording.drift.clean[recording.positions], first.min(axis=1))
    return NoveltyTest.fit(traits, recording.drift.pixel_range, seed, recording.units[recording.positions])


class CrossFitted(NamedTuple):
    """Calibration and drift fitted on all images but a part, bool `[m]`."""

    part: np.ndarray
    fitted: Calibration
    drift: Drift | None


def cross_fits(
    recording: Recording, allocation: Allocation, top_k: int | None, weighting: Weighting | None, seed: int
) -> list[CrossFitted]:
    """Calibrations for each part of the m images, fitted on the others; arguments as for `calibrate`.

    Images of one group are in one part.
    """
    allocation, number = allocation.limited_to(recording.errors.shape[1]), cross_fit_parts(recording.units, seed)
    made = []
    for p in range(number.max() + 1):
        others = recording.select(number != p)
        if len(others.y):
            fitted = fit_calibration(others, allocation, top_k, weighting)
            drift = Drift.fit(others.drift, fitted.fusion.prior_alone) if others.drift else None
            made.append(CrossFitted(number == p, fitted, drift))
    return made


def cross_answers(
    recording: Recording, parts: Sequence[CrossFitted], settings: Settings, weighting: Weighting | None
) -> Answers:
    """Answers of tier 1 and of both tiers for the m images, each with a calibration and a drift fitted on other images.

    Both tiers start from the prior that the drift flattens, as the classifier does. Tier 1 alone keeps its own, since
    there is no drift where tier 2 is off.

    Parameters
    ----------
    recording, weighting
        As for `calibrate`.
    parts : sequence of CrossFitted
        What answers each part.
    settings : (allocation, top_k)
        Settings to answer with.
    """
    looks = None if recording.drift is None else recording.drift.clean
    return _answers(recording, *_replays(recording, np.arange(len(recording.all_y)), looks, parts, settings, weighting))


def _unusual_answers(
    copies: Copies, parts: Sequence[CrossFitted], settings: Settings, weighting: Weighting | None
) -> Answers | None:
    """Answers to the copies that look unusual; None for fewer than `FEWEST_UNUSUAL`, or of fewer groups.

    Tier 1 alone has the flattened prior, too, so that all that is gained is tier 2's. An allocation that takes more
    trials than the copies have is cut down to these: what it would gain beyond them is left out.
    """
    posterior, scale, flatness, evaluations = _replays(
        copies.recording, copies.of, copies.looks, parts, settings, weighting
    )
    unusual = flatness < 1
    if len(np.unique(copies.recording.units[unusual])) < FEWEST_UNUSUAL:
        return None
    return _answers(copies.recording, posterior, scale * flatness, np.ones(len(flatness)), evaluations).select(unusual)


def _on_unusual(answers: Answers) -> Worth:
    """Compare the answers to unusual copies: a second chance, which takes an interval of log loss above zero."""
    worth = Worth.of(answers)
    return replace(worth, pays=worth.pays and worth.log_loss_gain.low > 0)


def _replays(
    recording: Recording,
    of: np.ndarray,
    looks: np.ndarray | None,
    parts: Sequence[CrossFitted],
    settings: Settings,
    weighting: Weighting | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Posterior of the recorded ones among r images, `[n, k]`; prior's scale, flatness, and evaluations of all, `[r]`.

    An image with some looks `[r, 5]` is answered with what was not fitted on the one `[r]` that it is, or is a copy of.
    """
    r, (allocation, top_k) = len(recording.all_y), settings
    allocation = allocation.limited_to(recording.errors.shape[1])
    posterior = softmax(recording.log_prior, axis=1)
    scale, flatness, evaluations = np.ones(r), np.ones(r), np.zeros(r)
    for part, fitted, drift in parts:
        mine = part[of]
        scale[mine] = fitted.fusion.prior_alone
        if drift and looks is not None:
            flatness[mine] = drift.factors(looks[mine])
        # recorded [n]: to answer among the recorded ones; at: their places among all r
        recorded = mine[recording.positions]
        at = recording.positions[recorded]
        if len(at):
            own = recording.select(mine)
            errors, ceilings = in_order(own, fitted, allocation, weighting)
            prior = own.log_prior * flatness[at, None]
            posterior[recorded], evaluations[at] = replay(fitted.fusion, allocation, prior, errors, top_k, ceilings)
    # what an image costs whose right class was not recorded is not known; on average it is taken for another's cost
    unknown = np.setdiff1d(np.arange(r), recording.positions)
    evaluations[unknown] = evaluations[recording.positions].mean() if len(recording.y) else 0
    return posterior, scale, flatness, evaluations


def _answers(
    recording: Recording,
    posterior: np.ndarray,
    prior_alone: np.ndarray,
    flatness: np.ndarray,
    evaluations: np.ndarray,
) -> Answers:
    """Both tiers' answers to m images, from the posterior `[n, k]` of the recorded ones.

    The prior's inverse temperature `[m]` is multiplied by the flatness `[m]` where both tiers answer.

    Recorded candidates keep the probability that tier 1 gives them together. With tier 1 at (0.6, 0.3, 0.1), the first
    two recorded and a posterior of (0.2, 0.8) among them, the second class has 0.9 · 0.8 = 0.72.
    """
    m, n, at = np.arange(len(recording.all_y)), np.arange(len(recording.y)), recording.positions
    flattened = prior_alone * flatness
    prior = [log_softmax(scale[:, None] * recording.all_log_prior, axis=1) for scale in (prior_alone, flattened)]
    leader = recording.all_log_prior.argmax(axis=1)
    right, loss = np.stack([leader == recording.all_y] * 2), -np.stack([p[m, recording.all_y] for p in prior])
    # log of the probability that tier 1 gives the recorded candidates together
    shared = logsumexp(flattened[at, None] * recording.log_prior, axis=1) - logsumexp(
        flattened[at, None] * recording.all_log_prior[at], axis=1
    )
    loss[1, at] = -np.log(np.maximum(posterior[n, recording.y], 1e-12)) - shared
    right[1, at] = posterior.argmax(axis=1) == recording.y
    weight = np.ones(len(m)) if recording.all_weight is None else recording.all_weight
    return Answers(leader, right, loss, evaluations, weight, recording.units)


def fit_calibration(
    recording: Recording, allocation: Allocation, top_k: int | None, weighting: Weighting | None
) -> Calibration:
    """Fit weights (unless given), order and fusion to a recording, for use with that allocation.

    The fusion is fitted by maximum likelihood at fixed numbers of trials. An adaptive allocation stops at moments
    that favour its leader, so the sharpness of the evidence is then chosen on replays of the allocation itself, by
    the likelihood of the answers at the moment of stopping: confidence means what it says where it is used.
    """
    learned = BinnedWeights.fit(recording.errors, recording.t, recording.y) if weighting is None else None
    weights = (learned or weighting)(recording.t, recording.alpha, recording.sigma)  # type: ignore[misc]
    order = InformativeOrder.fit(paired_gaps(recording.errors * weights[None, :, None], recording.y), recording.t)
    used = _order(order, recording, allocation)  # columns [T], so that errors[:, :j] are the first j trials run
    unweighted, errors = recording.errors[:, used], (recording.errors * weights[None, :, None])[:, used]
    alone = (recording.all_log_prior, recording.all_y)
    fusion = Fusion.fit(recording.log_prior, errors, recording.y, alone, recording.weight, recording.all_weight)
    if allocation.max_trials <= errors.shape[1]:
        fusion = _sharpest(fusion, recording, errors, allocation, top_k)
    usual = UsualErrors.fit(unweighted, recording.t[used], weights[used], recording.vectors)
    top = float(recording.all_log_prior.max(axis=1).mean())
    return Calibration(replace(fusion, usual=usual, top_log_prior=top), learned, order, len(recording.y))


def _order(order: InformativeOrder, recording: Recording, allocation: Allocation) -> np.ndarray:
    """The recorded trials in the order in which an allocation uses them, or those like them, int `[T]`."""
    if allocation.fitted_order:
        return np.argsort(-order.at(recording.t), kind="stable")
    return nearest_trials(allocation.max_trials, recording.t)


def in_order(
    recording: Recording, fitted: Calibration, allocation: Allocation, weighting: Weighting | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weighted errors `[n, T, k]` in the order in which an allocation uses the trials, and their ceilings `[T + 1]`."""
    used = _order(fitted.order, recording, allocation)
    weights = (fitted.weighting or weighting)(recording.t, recording.alpha, recording.sigma)[used]  # type: ignore[misc]
    usual = fitted.fusion.usual
    ceilings = None if usual is None else usual.ceilings(recording.t[used], weights)
    return recording.errors[:, used] * weights[None, :, None], ceilings


def _sharpest(
    fusion: Fusion, recording: Recording, errors: np.ndarray, allocation: Allocation, top_k: int | None
) -> Fusion:
    """The fusion whose replayed answers are the likeliest, climbed to from the fitted one; itself if none is better."""
    n = np.arange(len(recording.y))

    @cache
    def likelihood(k: int) -> float:
        option = fusion.sharpened(SHARPNESS[k])
        posterior = replay(option, allocation, recording.log_prior, errors, top_k)[0]
        return float(np.average(np.log(np.maximum(posterior[n, recording.y], 1e-12)), weights=recording.weight))

    best = 0
    while higher := [k for k in (best - 1, best + 1) if k in SHARPNESS and likelihood(k) > likelihood(best)]:
        best = max(higher, key=likelihood)
    return fusion.sharpened(SHARPNESS[best])
