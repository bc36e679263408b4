"""Fitting the fusion, the timestep weights and the order of trials on images that neither tier was trained on."""

from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Literal

import numpy as np

from .allocation import Allocation, FixedTrials
from .fusion import Fusion
from .images import select
from .loop import Loop
from .objectives import BinnedWeights, Weighting, paired_gaps, uniform_weights
from .ports import Denoiser, Label
from .proposing import shortlist
from .reranker import Reranker
from .tasks import Task
from .trials import TELLING_TRIALS, TellingOrder
from .work import Capacity, Recorded

__all__ = ["Calibration", "Recording", "fit_calibration", "record"]

RECORDED_TRIALS = TELLING_TRIALS
"""Trials recorded per image: those that a fitted order chooses from, so that what is replayed is what will be run."""

RECORDED_CLASSES = 20
"""Candidates recorded per image: those with the most prior mass."""

SHARPNESS = np.geomspace(0.4, 1.6, 13)
"""Factors on the evidence's log-scores that are tried on replayed races."""


@dataclass(frozen=True)
class Recording:
    """What both tiers say of n labelled images that they have not seen.

    Attributes
    ----------
    log_prior : float array `[n, k]`
        Tier 1's log-probabilities of the recorded candidates.
    errors : float array `[n, T, k]`
        Unweighted errors of these candidates in T trials, in the even order.
    t, alpha, sigma : float array `[T]`
        Times and noise levels of the trials.
    y : int array `[n]`
        Position of the right class among the candidates.
    all_log_prior : float array `[m, C]`
        Tier 1's log-probabilities of all classes, also of images whose right class was not among the candidates.
    all_y : int array `[m]`
        Right classes of those.
    """

    log_prior: np.ndarray
    errors: np.ndarray
    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    y: np.ndarray
    all_log_prior: np.ndarray
    all_y: np.ndarray

    @classmethod
    def join(cls, parts: list["Recording"]) -> "Recording":
        """Recordings of different images, made with different parts, as one."""
        names = ("log_prior", "errors", "y", "all_log_prior", "all_y")
        return replace(parts[0], **{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


@dataclass(frozen=True)
class Calibration:
    """What labelled images teach about two tiers.

    Attributes
    ----------
    fusion : Fusion
        How prior and evidence make a posterior.
    weighting : BinnedWeights or None
        Learned timestep weights; None where the weights were given.
    order : TellingOrder
        Most telling timesteps first.
    n_images : int
        How many images it rests on.
    """

    fusion: Fusion
    weighting: BinnedWeights | None
    order: TellingOrder
    n_images: int


def record(
    denoiser: Denoiser,
    images: Any,
    classes: np.ndarray,
    log_prior: np.ndarray,
    y: np.ndarray,
    *,
    objective: str,
    batch_size: int | Literal["auto"] | None,
    seed: int,
    progress: bool = False,
) -> Recording:
    """Run all recorded trials on all images, for as many candidates as are recorded.

    Parameters
    ----------
    denoiser : Denoiser
        Tier 2.
    images : sequence of n images
        What it encodes.
    classes : array of labels `[C]`
        What the columns of the prior stand for.
    log_prior : float array `[n, C]`
        Tier 1's log-probabilities.
    y : int array `[n]`
        Right classes. Of images whose right class is not among the recorded candidates only the prior is kept.
    objective, batch_size, seed, progress
        As for `Reranker`.
    """
    top = np.sort(np.argsort(-log_prior, axis=1, kind="stable")[:, :RECORDED_CLASSES], axis=1)
    hit = top == y[:, None]
    usable = np.flatnonzero(hit.any(axis=1))
    reranker = Reranker(
        denoiser,
        allocation=FixedTrials(RECORDED_TRIALS),
        objective=objective,
        weighting=uniform_weights,
        batch_size=batch_size,
        random_state=seed,
    )
    chosen = select(images, usable)
    labels: list[list[Label]] = [classes[c].tolist() for c in top[usable]]
    results = reranker.rerank(chosen, labels, progress=progress)
    finite = np.array([r.stopped_by != "fallback" for r in results], dtype=bool)
    errors = np.zeros((finite.sum(), RECORDED_TRIALS, top.shape[1]), dtype=np.float32)
    for table, result in zip(errors, compress(results, finite), strict=True):
        table[:] = result.evidence
    kept = np.take_along_axis(log_prior, top, axis=1)[usable][finite]
    position = hit[usable].argmax(axis=1)[finite]
    return Recording(kept, errors, *reranker.levels(), position, log_prior, y)


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
    errors = recording.errors * weights[None, :, None]
    order = TellingOrder.fit(paired_gaps(errors, recording.y), recording.t)
    if allocation.fitted_order:
        errors = errors[:, np.argsort(-order.at(recording.t), kind="stable")]
    fusion = Fusion.fit(recording.log_prior, errors, recording.y, (recording.all_log_prior, recording.all_y))
    if allocation.max_trials <= errors.shape[1]:
        fusion = _sharpest(fusion, recording, errors, allocation, top_k)
    return Calibration(fusion, learned, order, len(recording.y))


def _sharpest(
    fusion: Fusion, recording: Recording, errors: np.ndarray, allocation: Allocation, top_k: int | None
) -> Fusion:
    """The fusion whose replayed answers are the likeliest; as it is where that makes no difference."""
    options = [fusion, *(fusion.sharpened(factor) for factor in SHARPNESS)]
    posteriors = [replay(option, allocation, recording.log_prior, errors, top_k) for option in options]
    n = np.arange(len(recording.y))
    likelihood = [np.log(np.maximum(p[n, recording.y], 1e-12)).mean() for p in posteriors]
    return options[int(np.argmax(likelihood))]


def replay(
    fusion: Fusion, allocation: Allocation, log_prior: np.ndarray, errors: np.ndarray, top_k: int | None = None
) -> np.ndarray:
    """Posterior `[n, k]` that an allocation ends with on recorded, weighted errors `[n, T, k]`.

    The same loop that asks a denoiser, here reading from a table.
    """
    posterior = fusion.prior(log_prior)
    candidates = shortlist(posterior, top_k)
    table = np.stack(
        [np.pad(e[:, c], ((0, 0), (0, e.shape[1] - len(c)))) for e, c in zip(errors, candidates, strict=True)]
    )
    tasks = [Task(i, tuple(c.tolist()), log_prior[i, c]) for i, c in enumerate(candidates)]
    loop = Loop(allocation, fusion, Recorded(table), Capacity(512, 2**14), log_prior.shape[1])
    for step in loop.run(tasks):
        for image, result in step.finished:
            c = list(result.candidates)
            posterior[image, c] = result.posterior * posterior[image, c].sum()
    return posterior
