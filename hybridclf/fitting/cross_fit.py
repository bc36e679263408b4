"""Fitting both tiers once for good, and once per fold, so that there are unseen images to calibrate on."""

import warnings
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.parallel import Parallel, delayed
from tqdm.std import tqdm

from ..data.arrays import Items
from ..errors import UncalibratedWarning
from ..proposer import aligned_log_proba
from ..utils.progress import progress_bar
from .corruptions import CORRUPTIONS, corrupt
from .drift import Drift, DriftSample, looks_of
from .recording import Copies, Recording, record
from .splitting import Split, folds, hold_out
from .tier_fitter import FittedTiers, Sample, TierFitter

__all__ = ["CrossFit", "pixel_span", "record_drift"]


def pixel_span(images: Any) -> tuple[float, float] | None:
    """Lowest and highest pixel of images `[n, H, W, C]`; None for anything else, and for images of one colour."""
    if getattr(images, "ndim", 0) != 4:
        return None
    low, high = float(images.min()), float(images.max())
    return (low, high) if low < high else None


def record_drift(
    proposer: Any,
    classes: np.ndarray,
    images: Any,
    y: np.ndarray,
    pixel_range: tuple[float, float] | None,
    seed: int,
    progress: bool = False,
    corrupted: bool = True,
) -> DriftSample | None:
    """Record looks of images, and tier 1's answers to corrupted copies; None if they are no images of one size.

    Parameters
    ----------
    proposer : Proposer
        Tier 1.
    classes : array `[C]`
        The labels.
    images : array `[n, H, W, C]`
        Images that tier 1 has not seen.
    y : int array `[n]`
        Their right classes.
    pixel_range : (low, high) or None
        Pixel values of black and white; None for anything but images.
    seed : int
        Decides the copies, which are of the first images alone if there are many.
    progress : bool
        Show a progress bar.
    corrupted : bool
        Make copies; without them the looks of the images are all.
    """
    if pixel_range is None or min(images.shape[1:3]) < 2:
        return None

    def log_proba(copies: np.ndarray) -> np.ndarray:
        return _log_proba(proposer, classes, copies, images.dtype)

    if not corrupted:
        return DriftSample.of_looks(looks_of(images, *pixel_range), len(classes), pixel_range)
    return DriftSample.record(log_proba, images, y, pixel_range, seed, progress)


def _log_proba(proposer: Any, classes: np.ndarray, copies: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Tier 1's log-probabilities `[n, C]` of copies, float `[n, H, W, C]`, of images of some type."""
    # networks for images tell 0 to 255 from 0 to 1 by the type
    whole = getattr(proposer, "takes_images", False) and np.issubdtype(dtype, np.integer)
    copies = copies.round().astype(dtype) if whole else copies
    return aligned_log_proba(proposer, Items(copies, copies), classes)


MOST_COPIES, COPY_TRIALS = 100, 16
"""Unusual copies that tier 2 is asked about, of all folds together, and trials of each: as much as 25 images more."""

MAX_RECORDED_IMAGES = 2000
"""More images, of all folds together, add nothing to a handful of fusion parameters, and are not recorded."""


@dataclass(frozen=True)
class CrossFit:
    """Fits both tiers, and records predictions for images that they have not seen.

    A tier that saw an image in training is over-sure about it. So both tiers are refitted without each fold, and their
    predictions for that fold are recorded; or a share of the images is held out of the training for good. Tiers that
    are trained already are used as they are: they must not have seen any of the images.

    Attributes
    ----------
    fitter : TierFitter
        Fits the tiers.
    classes : array `[C]`
        The labels.
    seed : int
        Decides folds, training and trials.
    objective, batch_size
        As for `Reranker`.
    n_jobs : int or None
        Folds at a time, as joblib counts them; threads, unless a `joblib.parallel_config` says otherwise.
    progress : bool
        Whether to show a progress bar for all of it.
    pixel_range : (low, high) or None
        Lowest and highest pixel of all images; None where they have no one size, and for vectors.
    """

    fitter: TierFitter
    classes: np.ndarray
    seed: int
    objective: str
    batch_size: int | None
    n_jobs: int | None = None
    progress: bool = False
    pixel_range: tuple[float, float] | None = None

    def fit(self, sample: Sample, cv: Any) -> tuple[FittedTiers, Recording | None]:
        """Both tiers, and the recording; None if there is nothing to hold out.

        Parameters
        ----------
        sample : Sample
            All labelled images there are.
        cv : int, float, splitter or iterable of splits
            Folds, as for `splitting.folds`, or the share that is held out.
        """
        if not self.fitter.trains:
            tiers = self._fit_tiers(sample)
            return tiers, self.record(tiers, sample, progress=self.progress)
        if isinstance(cv, float):
            splits = [hold_out(sample.y, cv, self.seed, sample.groups)]
        else:
            splits = list(folds(sample.y, cv, self.seed, sample.groups))
        if not splits or not len(splits[0][1]):
            warnings.warn(
                "no image can be held out, since every class has a single image or group, so nothing is calibrated and "
                "the answer is tier 1's; give every class at least 2 images",
                UncalibratedWarning,
                stacklevel=4,
            )
            return self._fit_tiers(sample), None
        n_trainings = 1 if isinstance(cv, float) else len(splits) + 1
        total = n_trainings * self.fitter.training.max_iter if self.fitter.denoiser is None else None
        with progress_bar(total=total, unit="pass", leave=None, show=self.progress) as bar:
            return self._hold_out(sample, splits[0], bar) if isinstance(cv, float) else self._fold(sample, splits, bar)

    def _hold_out(self, sample: Sample, split: Split, bar: tqdm) -> tuple[FittedTiers, Recording]:
        kept, out = split
        bar.set_description("fit")
        tiers = self._fit_tiers(sample, index=kept, bar=bar)
        self._check_converged(tiers)
        bar.set_description("record held-out images")
        return tiers, self.record(tiers, sample.select(out))

    def _fold(self, sample: Sample, splits: list[Split], bar: tqdm) -> tuple[FittedTiers, Recording]:
        """Tiers fitted on everything, for as long as the folds found best, and recordings of the folds."""
        limit = max(1, MAX_RECORDED_IMAGES // len(splits))

        def fold(i: int, kept: np.ndarray, out: np.ndarray) -> tuple[FittedTiers, Recording]:
            bar.set_description(f"fold {i + 1} of {len(splits)}")
            tiers = self._fit_tiers(sample, seed=self.seed + 1 + i, index=kept, bar=bar)
            return tiers, self.record(tiers, sample.select(out), limit)

        made = []
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        for done in parallel(delayed(fold)(i, kept, out) for i, (kept, out) in enumerate(splits)):
            made.append(done)
            if done[0].log is not None:  # what early stopping saved, and all of a fold in another process
                bar.update(max(0, len(made) * self.fitter.training.max_iter - bar.n))
        n_iters = [tiers.log.n_iter for tiers, _ in made if tiers.log]
        for tiers, _ in made[:1]:
            self._check_converged(tiers)
        bar.set_description("fit on all images")
        n_iter = round(float(np.median(n_iters))) if n_iters else None
        return self._fit_tiers(sample, n_iter=n_iter, bar=bar), Recording.join([recording for _, recording in made])

    def _check_converged(self, tiers: FittedTiers) -> None:
        """Warn if the denoiser's training ended at `max_iter` while its loss was still falling."""
        if tiers.log is not None and not tiers.log.converged:
            warnings.warn(
                f"the denoiser's loss was still falling after max_iter={self.fitter.training.max_iter} passes; raise "
                "max_iter",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _fit_tiers(self, sample: Sample, seed: int | None = None, **options: Any) -> FittedTiers:
        return self.fitter.fit(sample, self.classes, self.seed if seed is None else seed, **options)

    def record(
        self,
        tiers: FittedTiers,
        sample: Sample,
        limit: int | None = None,
        progress: bool = False,
        corrupted: bool = True,
    ) -> Recording:
        """Record both tiers' predictions for these images, at most `limit` of them.

        Corrupted copies are recorded too, unless nothing will be fitted to the recording.
        """
        chosen = sample.select(
            np.random.default_rng(self.seed).permutation(len(sample))[: limit or MAX_RECORDED_IMAGES]
        )
        made = record(
            tiers.denoiser,
            chosen.items.images,
            self.classes,
            aligned_log_proba(tiers.proposer, chosen.items, self.classes),
            chosen.y,
            objective=self.objective,
            batch_size=self.batch_size,
            seed=self.seed,
            weight=chosen.weight,
            progress=progress,
        )
        images = chosen.items.images
        drift = record_drift(
            tiers.proposer, self.classes, images, chosen.y, self.pixel_range, self.seed, progress, corrupted
        )
        copies = self._copies(tiers, chosen, drift, limit, progress) if drift and corrupted else None
        return replace(made, all_groups=chosen.groups, drift=drift, copies=copies)

    def _copies(
        self, tiers: FittedTiers, sample: Sample, drift: DriftSample, limit: int | None, progress: bool
    ) -> Copies | None:
        """Record both tiers' predictions for unusual copies, at most one of an image; None if there are none.

        They are `MOST_COPIES` at most, or the share of these that a fold has with so many images recorded.
        """
        most = MOST_COPIES * min(limit or MAX_RECORDED_IMAGES, MAX_RECORDED_IMAGES) // MAX_RECORDED_IMAGES
        if not most:  # more folds than copies
            return None
        images, (low, high) = sample.items.images[: 3 * most], drift.pixel_range
        rng = np.random.default_rng([self.seed, crc32(images[0].tobytes())])  # not the same kinds in every fold
        kinds = rng.choice(list(CORRUPTIONS), size=len(images))
        copies = images.astype(float)
        for kind in np.unique(kinds).tolist():
            copies[kinds == kind] = corrupt(images[kinds == kind], kind, low, high, rng)
        looks = looks_of(copies, low, high)
        of = np.flatnonzero(Drift.of_usual(drift).log_sizes(looks).any(axis=1))[:most]
        if not len(of):
            return None
        log_prior = _log_proba(tiers.proposer, self.classes, copies[of], images.dtype)
        exact = np.issubdtype(images.dtype, np.integer)
        recording = record(
            tiers.denoiser,
            copies[of].round().astype(images.dtype) if exact else copies[of],
            self.classes,
            log_prior,
            sample.y[of],
            objective=self.objective,
            batch_size=self.batch_size,
            seed=self.seed,
            weight=None if sample.weight is None else sample.weight[of],
            trials=COPY_TRIALS,
            progress=progress,
        )
        groups = None if sample.groups is None else sample.groups[of]
        return Copies(looks[of], of, replace(recording, all_groups=groups))
