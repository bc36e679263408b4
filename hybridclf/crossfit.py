"""Fitting both tiers so that there is something to calibrate on: images that neither has seen."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from .calibration import Recording, record
from .errors import InvalidInputError, UncalibratedWarning
from .fitting import Parts, Recipe, rows_of
from .images import select
from .proposing import column_of, log_proba

__all__ = ["CrossFit", "aligned_log_proba"]

MAX_RECORDED_IMAGES = 2000
"""More images add nothing to a handful of fusion parameters, and are not recorded."""


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
    """

    recipe: Recipe
    classes: np.ndarray
    seed: int
    objective: str
    batch_size: int | Literal["auto"] | None

    def fit(self, images: Any, y: np.ndarray, cv: int | float) -> tuple[Parts, Recording | None]:
        """Both tiers, and the recording; None if there is nothing to hold out.

        Parameters
        ----------
        images : array or list of n images
            All there are.
        y : int array `[n]`
            Class numbers.
        cv : int or float
            Number of folds, or share held out.
        """
        if not self.recipe.trains:
            parts = self._parts(images, y)
            return parts, self.record(parts, images, y)
        smallest = int(np.bincount(y)[np.unique(y)].min())
        if smallest < 2:
            warnings.warn(
                "a class has a single image, so none can be held out and the posterior stays uncalibrated; "
                "give every class at least 2 images",
                UncalibratedWarning,
                stacklevel=3,
            )
            return self._parts(images, y), None
        if isinstance(cv, float):
            return self._hold_out(images, y, cv)
        return self._fold(images, y, min(cv, smallest))

    def _hold_out(self, images: Any, y: np.ndarray, share: float) -> tuple[Parts, Recording]:
        try:
            kept, out = train_test_split(np.arange(len(y)), test_size=share, random_state=self.seed, stratify=y)
        except ValueError as error:
            raise InvalidInputError(
                f"cv={share} of {len(y)} images does not leave every class an image on both sides: {error}; use "
                "another share, or a number of folds"
            ) from error
        lost = np.setdiff1d(y, y[kept])
        if len(lost):
            raise InvalidInputError(
                f"cv={share} holds out every image of class {self.classes.tolist()[lost[0]]!r}; use a smaller share"
            )
        parts = self._parts(select(images, kept), y[kept])
        return parts, self.record(parts, select(images, out), y[out])

    def _fold(self, images: Any, y: np.ndarray, n_splits: int) -> tuple[Parts, Recording]:
        """Tiers fitted on everything, for as long as the folds found best, and recordings of the folds."""
        recordings, n_iters = [], []
        folds = StratifiedKFold(n_splits, shuffle=True, random_state=self.seed).split(y, y)
        for i, (kept, out) in enumerate(folds):
            parts = self._parts(select(images, kept), y[kept], seed=self.seed + 1 + i)
            recordings.append(self.record(parts, select(images, out), y[out]))
            n_iters += [parts.log.n_iter] if parts.log else []
        n_iter = round(float(np.median(n_iters))) if n_iters else None
        return self._parts(images, y, n_iter=n_iter), Recording.join(recordings)

    def _parts(self, images: Any, y: np.ndarray, seed: int | None = None, n_iter: int | None = None) -> Parts:
        return self.recipe.fit(images, y, self.classes, self.seed if seed is None else seed, n_iter)

    def record(self, parts: Parts, images: Any, y: np.ndarray) -> Recording:
        """What the parts say of (at most `MAX_RECORDED_IMAGES` of) these images, whose class numbers are y `[n]`."""
        chosen = np.random.default_rng(self.seed).permutation(len(y))[:MAX_RECORDED_IMAGES]
        images, y = select(images, chosen), y[chosen]
        return record(
            parts.denoiser,
            images,
            self.classes,
            aligned_log_proba(parts.proposer, images, self.classes),
            y,
            objective=self.objective,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self.recipe.progress,
        )


def aligned_log_proba(proposer: Any, images: Any, classes: np.ndarray) -> np.ndarray:
    """Tier 1's log-probabilities `[n, C]` in the order of the classes `[C]`."""
    X = images if getattr(proposer, "takes_images", False) else rows_of(images)
    return log_proba(proposer, X)[:, column_of(proposer, classes)]
