"""Predictions of both tiers for labelled images, recorded once, for a calibration to be fitted on and replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np

from ..data.arrays import select
from ..denoising.weighting import uniform_weights
from ..metrics import group_numbers
from ..ports import Denoiser, Label
from ..reranker import Reranker
from ..reranking.allocation import FixedTrials
from ..reranking.trials import INFORMATIVE_TRIALS
from .drift import DriftSample

__all__ = ["RECORDED_CLASSES", "RECORDED_TRIALS", "Copies", "Recording", "record"]

RECORDED_TRIALS = INFORMATIVE_TRIALS
"""Trials recorded per image: all that a fitted order chooses from, so that a replay runs the very same trials."""

RECORDED_CLASSES = 20
"""Candidates recorded per image: the most probable ones."""


@dataclass(frozen=True)
class Recording:
    """Predictions of both tiers for n labelled images that they have not seen in training.

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
        Right classes of these m images.
    at : int array `[n]` or None
        Positions of the n recorded images among these m; None: all m are recorded.
    all_weight : float array `[m]` or None
        Weights of the m images; None if all count alike.
    all_groups : array `[m]` or None
        Groups of the m images that belong together; None if each is alone.
    vectors : bool
        True for vectors, False for images.
    drift : DriftSample or None
        Looks of the m images, and tier 1's answers to corrupted copies; None for vectors, and images of any size.
    copies : Copies or None
        Both tiers' predictions for some unusual copies of the m images.
    """

    log_prior: np.ndarray
    errors: np.ndarray
    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    y: np.ndarray
    all_log_prior: np.ndarray
    all_y: np.ndarray
    at: np.ndarray | None = None
    all_weight: np.ndarray | None = None
    all_groups: np.ndarray | None = None
    vectors: bool = False
    drift: DriftSample | None = None
    copies: "Copies | None" = None

    @property
    def positions(self) -> np.ndarray:
        """Positions of the n recorded images among the m, int `[n]`."""
        return np.arange(len(self.y)) if self.at is None else self.at

    @property
    def units(self) -> np.ndarray:
        """Numbers of the groups of the m images, int `[m]`, from 0 on; an image without one is a group by itself."""
        return group_numbers(self.all_groups, len(self.all_y))

    @property
    def weight(self) -> np.ndarray | None:
        """Weights of the recorded images, `[n]`; None if all count alike."""
        return None if self.all_weight is None else self.all_weight[self.positions]

    @classmethod
    def join(cls, parts: list["Recording"]) -> "Recording":
        """Recordings of different folds as one."""
        # positions count within a fold: with 5 images in the first, the second's image 0 becomes image 5
        names = ["log_prior", "errors", "y", "all_log_prior", "all_y"]
        names += [name for name in ("all_weight", "all_groups") if getattr(parts[0], name) is not None]
        starts = np.cumsum([0, *(len(p.all_y) for p in parts[:-1])])
        joined: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
        at = np.concatenate([p.positions + start for p, start in zip(parts, starts, strict=True)])
        drifts = [p.drift for p in parts if p.drift is not None]
        drift = DriftSample.join(drifts) if drifts else None
        return replace(parts[0], **joined, at=at, drift=drift, copies=Copies.join(parts, starts))

    def select(self, images: np.ndarray) -> "Recording":
        """The recording of some of the m images, bool `[m]`."""
        # [m] -> [n]; cumsum - 1 numbers the kept images anew: (T, F, T) gives (0, 0, 1), image 2 becomes image 1
        kept = images[self.positions]
        return replace(
            self,
            log_prior=self.log_prior[kept],
            errors=self.errors[kept],
            y=self.y[kept],
            all_log_prior=self.all_log_prior[images],
            all_y=self.all_y[images],
            at=(np.cumsum(images) - 1)[self.positions[kept]],
            all_weight=None if self.all_weight is None else self.all_weight[images],
            all_groups=None if self.all_groups is None else self.all_groups[images],
            drift=None if self.drift is None else self.drift.select(images),
            copies=None if self.copies is None else self.copies.select(images),
        )


@dataclass(frozen=True)
class Copies:
    """Corrupted copies of some of m images that look unlike these, and both tiers' predictions for the copies.

    Attributes
    ----------
    looks : float array `[r, 5]`
        Looks of the copies.
    of : int array `[r]`
        Position of each copy's image among the m.
    recording : Recording
        Predictions for the r copies.
    """

    looks: np.ndarray
    of: np.ndarray
    recording: Recording

    @classmethod
    def join(cls, parts: Sequence[Recording], starts: np.ndarray) -> "Copies | None":
        """The copies of different folds, whose images begin at these positions; None if there are none."""
        own = [(part.copies, start) for part, start in zip(parts, starts, strict=True) if part.copies is not None]
        if not own:
            return None
        looks, of = np.concatenate([c.looks for c, _ in own]), np.concatenate([c.of + start for c, start in own])
        return cls(looks, of, Recording.join([c.recording for c, _ in own]))

    def select(self, images: np.ndarray) -> "Copies":
        """The copies of some of the m images, bool `[m]`."""
        kept = images[self.of]
        return Copies(self.looks[kept], (np.cumsum(images) - 1)[self.of[kept]], self.recording.select(kept))


def record(
    denoiser: Denoiser,
    images: Any,
    classes: np.ndarray,
    log_prior: np.ndarray,
    y: np.ndarray,
    *,
    objective: str,
    batch_size: int | None,
    seed: int,
    weight: np.ndarray | None = None,
    trials: int | None = None,
    progress: bool = False,
) -> Recording:
    """Run all recorded trials on all images, for as many candidates as are recorded.

    Parameters
    ----------
    denoiser : Denoiser
        Tier 2.
    images : sequence of n images
        Input of its `encode`.
    classes : array of labels `[C]`
        Labels of the prior's columns.
    log_prior : float array `[n, C]`
        Tier 1's log-probabilities.
    y : int array `[n]`
        Right classes. Of an image whose right class is no recorded candidate only the prior is kept.
    objective, batch_size, seed, progress
        As for `Reranker`.
    weight : float array `[n]`, optional
        Weights of the images; default: all count alike.
    trials : int, optional
        Trials T; default: `RECORDED_TRIALS`.
    """
    trials = trials or RECORDED_TRIALS
    # the likeliest classes [n, k] in the order of the classes; hit is True at the right one
    top = np.sort(np.argsort(-log_prior, axis=1, kind="stable")[:, :RECORDED_CLASSES], axis=1)
    hit = top == y[:, None]
    usable = np.flatnonzero(hit.any(axis=1))
    reranker = Reranker(
        denoiser,
        allocation=FixedTrials(trials),
        objective=objective,
        weighting=uniform_weights,
        batch_size=batch_size,
        random_state=seed,
    )
    chosen = select(images, usable)
    labels: list[list[Label]] = [classes[c].tolist() for c in top[usable]]
    results = reranker.rerank(chosen, labels, progress=progress)
    finite = np.array([r.stopped_by != "fallback" for r in results], dtype=bool)
    # a result's evidence is [T, k], and of all these tables one is made, [n, T, k]
    errors = np.zeros((finite.sum(), trials, top.shape[1]), dtype=np.float32)
    for table, result in zip(errors, compress(results, finite), strict=True):
        table[:] = result.evidence
    kept = np.take_along_axis(log_prior, top, axis=1)[usable][finite]
    position = hit[usable].argmax(axis=1)[finite]
    vectors = len(denoiser.shape) == 1
    return Recording(kept, errors, *reranker.levels(), position, log_prior, y, usable[finite], weight, vectors=vectors)
