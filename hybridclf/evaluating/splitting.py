"""Splits of images to evaluate on, with copies and groups on one side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.arrays import as_pil
from ..data.decoding import stretched
from ..data.duplicates import duplicate_groups
from ..data.holding_out import digests, join_groups, split
from ..errors import InvalidInputError
from ..fitting.splitting import joined_copies
from ..ports import Label

__all__ = ["split_off"]

SIDE = 32
"""Pixels a side in which images are compared for copies."""


def split_off(
    images: Any,
    y: np.ndarray,
    groups: np.ndarray,
    share: float,
    seed: int,
    classes: Sequence[Label],
    mirror: bool,
    *,
    uses: tuple[str, str],
    seen: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images off: a share of every class, copies and groups on one side.

    Parameters
    ----------
    images : array or list of n images or vectors
        What is split.
    y, groups : int array `[n]`
        Class numbers, and group numbers.
    share : float
        In (0, 1).
    seed : int
        Decides the split.
    classes : sequence of C labels
        For messages.
    mirror : bool
        Whether mirrored pictures are copies.
    uses : (str, str)
        Words for what the images that stay are for, and those that are split off, for messages.
    seen : bool array `[n]`, optional
        Images that an earlier training saw. They, their copies and their groups stay. Where the others of a class are
        fewer than the share asks for, all of these are split off. Default: none.

    Returns
    -------
    mask : bool array `[n]`
        Images that are split off.
    sides : int array `[n]`
        Numbers of the groups that were kept whole: near copies too, unless that left a class without an image.

    Raises
    ------
    InvalidInputError
        If a class of several images cannot be split, as they are one group or all of them were seen, or every class has
        a single image.
    """
    small, names = _small(images), list(map(str, classes))
    # vectors have no copies but equal ones
    equal = joined_copies(images, groups)
    alike = equal if small.ndim == 2 else join_groups(groups, duplicate_groups(small, mirror))
    barred = None if seen is None else np.isin(alike, alike[seen])
    try:
        return _split(y, alike, digests(small), share, seed, names, uses, barred), alike
    except InvalidInputError:  # all pictures of a place or thing may look like copies
        return _split(y, equal, digests(small), share, seed, names, uses, barred), equal


def _split(
    y: np.ndarray,
    groups: np.ndarray,
    digest: np.ndarray,
    share: float,
    seed: int,
    names: Sequence[str],
    uses: tuple[str, str],
    barred: np.ndarray | None,
) -> np.ndarray:
    # the only image of a class cannot be on both sides: it stays, unless its group is split off
    several = np.flatnonzero(np.bincount(y)[y] > 1)
    several = several if len(several) else np.arange(len(y))
    known = None if barred is None else digest[barred]
    own = y[several], groups[several], digest[several]
    return np.isin(groups, groups[several[split(*own, share, seed, names, known, uses, strict=False)[1]]])


def _small(images: Any) -> np.ndarray:
    """Images as one uint8 array of small pictures; vectors as they are."""
    if isinstance(images, np.ndarray):
        if images.ndim == 2 or images.dtype == np.uint8:
            return images
        low, high = float(images.min()), float(images.max())
        return ((images - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return np.stack([np.asarray(stretched(as_pil(image), (SIDE, SIDE, 3))) for image in images])
