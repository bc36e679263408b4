"""Fitting both tiers so that there is something to calibrate on: images that neither has seen."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.parallel import Parallel, delayed
from tqdm.std import tqdm

from .calibration import Recording, record
from .errors import UncalibratedWarning
from .fitting import Parts, Recipe, Sample
from .progress import progress_bar
from .proposer import aligned_log_proba
from .splitting import Split, folds, hold_out

__all__ = ["CrossFit"]

MAX_RECORDED_IMAGES = 2000
"""More images, of all folds together, add nothing to a handful of fusion parameters, and are not recorded."""


@dataclass(frozen=True)
class CrossFit:
    """Fits both tiers, and records what they or their like say of images they have not seen.

    A tier that saw an image in training is over-sure about it. So both tiers are refitted without each fold, and what
    they say of that fold is recorded; or a share of the images is held out of the training for good. Tiers that are
    trained already are used as they are: they must not have seen any of the images.

    Attributes
    ----------
    recipe : Recipe
        How to fit the tiers.
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
    """

    recipe: Recipe
    classes: np.ndarray
    seed: int
    objective: str
    batch_size: int | Literal["auto"] | None
    n_jobs: int | None = None
    progress: bool = False

    def fit(self, sample: Sample, cv: Any) -> tuple[Parts, Recording | None]:
        """Both tiers, and the recording; None if there is nothing to hold out.

        Parameters
        ----------
        sample : Sample
            All labelled images there are.
        cv : int, float, splitter or iterable of splits
            Folds, as for `splitting.folds`, or the share that is held out.
        """
        if not self.recipe.trains:
            parts = self._parts(sample)
            return parts, self.record(parts, sample, progress=self.progress)
        if isinstance(cv, float):
            splits = [hold_out(sample.y, cv, self.seed, sample.groups)]
        else:
            splits = list(folds(sample.y, cv, self.seed, sample.groups))
        if not splits or not len(splits[0][1]):
            warnings.warn(
                "no image can be held out, since every class has a single one, so nothing is calibrated and the answer "
                "is tier 1's; give every class at least 2 images",
                UncalibratedWarning,
                stacklevel=4,
            )
            return self._parts(sample), None
        n_trainings = 1 if isinstance(cv, float) else len(splits) + 1
        total = n_trainings * self.recipe.training.max_iter if self.recipe.denoiser is None else None
        with progress_bar(total=total, unit="pass", leave=None, show=self.progress) as bar:
            return self._hold_out(sample, splits[0], bar) if isinstance(cv, float) else self._fold(sample, splits, bar)

    def _hold_out(self, sample: Sample, split: Split, bar: tqdm) -> tuple[Parts, Recording]:
        kept, out = split
        bar.set_description("fit")
        parts = self._parts(sample, index=kept, bar=bar)
        self._check_converged(parts)
        bar.set_description("look at held-out images")
        return parts, self.record(parts, sample.select(out))

    def _fold(self, sample: Sample, splits: list[Split], bar: tqdm) -> tuple[Parts, Recording]:
        """Tiers fitted on everything, for as long as the folds found best, and recordings of the folds."""
        limit = max(1, MAX_RECORDED_IMAGES // len(splits))

        def fold(i: int, kept: np.ndarray, out: np.ndarray) -> tuple[Parts, Recording]:
            bar.set_description(f"fold {i + 1} of {len(splits)}")
            done = bar.n
            parts = self._parts(sample, seed=self.seed + 1 + i, index=kept, bar=bar)
            if parts.log is not None and self.n_jobs in (None, 1):
                bar.update(self.recipe.training.max_iter - (bar.n - done))  # what early stopping saved
            return parts, self.record(parts, sample.select(out), limit)

        made = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(fold)(i, kept, out) for i, (kept, out) in enumerate(splits)
        )
        n_iters = [parts.log.n_iter for parts, _ in made if parts.log]
        for parts, _ in made[:1]:
            self._check_converged(parts)
        bar.set_description("fit on all images")
        n_iter = round(float(np.median(n_iters))) if n_iters else None
        return self._parts(sample, n_iter=n_iter, bar=bar), Recording.join([recording for _, recording in made])

    def _check_converged(self, parts: Parts) -> None:
        """Warn if the denoiser's training ended at `max_iter` while its loss was still falling."""
        if parts.log is not None and not parts.log.converged:
            warnings.warn(
                f"the denoiser's loss was still falling after max_iter={self.recipe.training.max_iter} passes; raise "
                "max_iter",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _parts(self, sample: Sample, seed: int | None = None, **options: Any) -> Parts:
        return self.recipe.fit(sample, self.classes, self.seed if seed is None else seed, **options)

    def record(self, parts: Parts, sample: Sample, limit: int | None = None, progress: bool = False) -> Recording:
        """Ask both tiers about (at most so many of) these images, for a calibration."""
        chosen = sample.select(
            np.random.default_rng(self.seed).permutation(len(sample))[: limit or MAX_RECORDED_IMAGES]
        )
        return record(
            parts.denoiser,
            chosen.items.images,
            self.classes,
            aligned_log_proba(parts.proposer, chosen.items, self.classes),
            chosen.y,
            objective=self.objective,
            batch_size=self.batch_size,
            seed=self.seed,
            weight=chosen.weight,
            progress=progress,
        )
