"""Fitting the fusion, the timestep weights and the order of trials on images that neither tier was trained on."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from ..denoising.weighting import BinnedWeights, Weighting, paired_gaps
from ..reranking.allocation import Allocation, FixedTrials
from ..reranking.fusion import Fusion
from ..reranking.novelty import UsualErrors
from ..reranking.trials import InformativeOrder
from .drift import Drift
from .outliers import NoveltyTest, traits_of
from .recording import Recording
from .replay import replay
from .worth import Answers, Worth, harmed_classes

__all__ = [
    "Calibration",
    "calibrate",
    "cross_answers",
    "fit_calibration",
    "in_order",
    "worth_with",
]

COMPARED_IN, ENOUGH = (5, 2), 500
"""Parts of the images for the comparison with tier 1, and of more images than these.

Each part is answered with a calibration fitted on the others; half of many images is enough for one.
"""

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
        Flattens tier 1's prior for images that look unlike these; None for vectors, and for fewer than 30 images.
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
    fitted = fit_calibration(recording, allocation, top_k, weighting)
    answers = cross_answers(recording, allocation, top_k, weighting, seed)
    off = harmed_classes(answers)
    worth = Worth.of(answers.without(off), classes[off].tolist())
    if not worth.pays:
        worth = replace(Worth.of(answers), pays=False)  # of tier 2 as it would be
    fusion = replace(fitted.fusion, pays=worth.pays, harmed=worth.harmed if worth.pays else ())
    drift = Drift.fit(recording.drift, fusion.prior_alone) if recording.drift and worth.pays else None
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

    The decision about tier 2 stays: on or off, and off for which classes.

    Parameters
    ----------
    recording, classes, weighting, seed
        As for `calibrate`.
    worth : Worth
        The comparison with the settings before.
    fitted_for, answering : (allocation, top_k)
        Settings that the calibration was fitted for, and those that it answers with.
    """
    answers = cross_answers(recording, *fitted_for, weighting, seed, answering)
    off = np.flatnonzero(np.isin(classes, worth.harmed)) if worth.pays else np.array([], dtype=int)
    return replace(Worth.of(answers.without(off), worth.harmed), pays=worth.pays)


def _novelty(recording: Recording, order: InformativeOrder, seed: int) -> NoveltyTest | None:
    """The test of novelty, its errors those of the most informative trial; None if looks are not known."""
    if recording.drift is None:
        return None
    first = recording.errors[:, int(np.argsort(-order.at(recording.t), kind="stable")[0])]
    traits = traits_of(recording.drift.clean[recording.positions], first.min(axis=1))
    return NoveltyTest.fit(traits, recording.drift.pixel_range, seed)


def cross_answers(
    recording: Recording,
    allocation: Allocation,
    top_k: int | None,
    weighting: Weighting | None,
    seed: int,
    answering: Settings | None = None,
) -> Answers:
    """Answers of tier 1 and of both tiers for the m images, each with a calibration and a drift fitted on other images.

    Both tiers start from the prior that the drift flattens, as the classifier does. Tier 1 alone keeps its own, since
    there is no drift where tier 2 is off.

    Parameters
    ----------
    recording, allocation, top_k, weighting, seed
        As for `calibrate`.
    answering : (allocation, top_k), optional
        Settings to answer with. Default: those that are fitted for.
    """
    n_recorded = recording.errors.shape[1]
    if allocation.max_trials > n_recorded:  # more than can be replayed
        allocation = FixedTrials(n_recorded)
    m = len(recording.all_y)
    # 0, 1, … dealt out at random: parts of equal size, give or take one
    part = np.random.default_rng(seed).permutation(m) % min(COMPARED_IN[m > ENOUGH], m)
    posterior = softmax(recording.log_prior, axis=1)
    race, k = answering or (allocation, top_k)
    prior_alone, flatness, evaluations = np.ones(m), np.ones(m), np.zeros(m, dtype=int)
    for p in range(part.max() + 1):
        # others: recordings to fit on; mine [n]: recorded images to answer
        others, mine = recording.select(part != p), part[recording.positions] == p
        if not len(others.y) or not mine.any():
            continue
        fitted = fit_calibration(others, allocation, top_k, weighting)
        own = recording.select(part == p)
        prior_alone[part == p] = fitted.fusion.prior_alone
        drift = others.drift and Drift.fit(others.drift, fitted.fusion.prior_alone)
        if drift and own.drift:
            flatness[part == p] = drift.factors(own.drift.clean)
        # from the recorded images [n] to their places among all [m]
        at = recording.positions[mine]
        posterior[mine], evaluations[at] = replay(
            fitted.fusion, race, own.log_prior * flatness[at, None], in_order(own, fitted, race, weighting), k
        )
    return _answers(recording, posterior, prior_alone, flatness, evaluations)


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
    return Answers(leader, right, loss, evaluations, weight)


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
    """The recorded trials in the order in which an allocation uses them, int `[T]`."""
    return np.argsort(-order.at(recording.t), kind="stable") if allocation.fitted_order else np.arange(len(recording.t))


def in_order(
    recording: Recording, fitted: Calibration, allocation: Allocation, weighting: Weighting | None
) -> np.ndarray:
    """Weighted errors `[n, T, k]` in the order in which an allocation uses the trials."""
    weights = (fitted.weighting or weighting)(recording.t, recording.alpha, recording.sigma)  # type: ignore[misc]
    return (recording.errors * weights[None, :, None])[:, _order(fitted.order, recording, allocation)]


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
