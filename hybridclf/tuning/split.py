"""Split of a tuning's images: to train on, to stop and fit on, and to measure on."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_consistent_length

from ..data.datasets import as_groups, numbered
from ..data.holding_out import pack
from ..errors import InvalidInputError
from ..evaluating.sample import TrainedOn
from ..evaluating.splitting import split_off
from .questions import Questions
from .settings import TuneSettings

__all__ = ["Digests", "Split", "split_images"]


class Split(NamedTuple):
    """Positions of n images by their use, and the groups that are on one side.

    Attributes
    ----------
    training, fitted, measured : int arrays
        Positions of the images to train on, to stop and fit the fusion on, and to measure on.
    groups : int array `[n]`
        Numbers of the groups; copies are of one.
    """

    training: np.ndarray
    fitted: np.ndarray
    measured: np.ndarray
    groups: np.ndarray

    @property
    def digest(self) -> str:
        """Hash of the positions and groups, a short text."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self:
            digest.update(repr(part.tolist()).encode())
        return digest.hexdigest()

    def groups_of(self, index: np.ndarray) -> np.ndarray | None:
        """Groups of the images at positions `[m]`; None if each is alone."""
        groups = self.groups[index]
        return groups if len(np.unique(groups)) < len(groups) else None


@dataclass(frozen=True)
class Digests:
    """Digests of n images, by which those are told that a training has seen.

    Attributes
    ----------
    own : uint32 array `[n]`
        Digests of the images, as `data.holding_out.digests` has them.
    seen : TrainedOn
        Images that tier 1 was trained on, and the shape in which images are hashed.
    """

    own: np.ndarray
    seen: TrainedOn

    @property
    def are_seen(self) -> np.ndarray:
        """Mask of the images that tier 1 was trained on, bool `[n]`."""
        return np.isin(self.own, np.array(sorted(self.seen.known), dtype=np.uint32))

    def entries(self, split: Split) -> dict[str, Any]:
        """Log entries on the images that the result was trained on, and those that its fusion is fitted on."""
        known = np.array([*self.seen.known, *self.own[split.training].tolist()], dtype=np.uint32)
        return {
            "trained_on": pack(known),
            "fitted_on": pack(self.own[split.fitted]),
            "hashed_shape": self.seen.shape,
        }


def split_images(questions: Questions, groups: Any, settings: TuneSettings, seen: Any = None) -> Split:
    """Split images: copies and groups on one side, and about the same share of every class held out.

    Parameters
    ----------
    questions : Questions
        n images and their labels.
    groups : array `[n]` or None
        Groups of images that belong together.
    settings : TuneSettings
        Share that is held out, and seed.
    seen : bool array `[n]`, optional
        Images that tier 1 was trained on. They, their copies and their groups are not held out. Where the others of a
        class are fewer than the share asks for, all of these are.

    Raises
    ------
    InvalidInputError
        If too few images can be held out.
    """
    n = len(questions.candidates)
    kinds = np.arange(n) if groups is None else numbered(as_groups(groups).tolist())
    seen = np.zeros(n, dtype=bool) if seen is None else np.asarray(seen, dtype=bool)
    check_consistent_length(kinds, questions.candidates, seen)
    # captions are no classes: every image counts alike
    is_class = questions.y is not None
    y = np.array([own[0] if is_class else 0 for own in questions.candidates])
    names = questions.labels if is_class else ["captions"]
    share, uses = settings.validation_fraction, ("train on", "hold out")
    out, kinds = split_off(questions.images, y, kinds, share, settings.seed, names, mirror=False, uses=uses, seen=seen)
    held_out = np.flatnonzero(out)
    half = np.random.default_rng(settings.seed).permutation(np.unique(kinds[held_out]))
    measured = np.isin(kinds[held_out], half[: len(half) // 2])
    if not measured.any() or measured.all():
        raise InvalidInputError(
            f"{n} images, {seen.sum()} of which tier 1 was trained on, are too few to hold out two of them; give more"
        )
    return Split(np.flatnonzero(~out), held_out[~measured], held_out[measured], kinds)
