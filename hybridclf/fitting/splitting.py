"""Splits that hold images out: groups on one side, and, where a tier is trained, never the last image of a class."""

import warnings
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv, train_test_split
from torch import Tensor

from ..data.holding_out import join_groups
from ..errors import InvalidInputError
from ..metrics import group_numbers

__all__ = [
    "cross_fit_parts",
    "folds",
    "groups_with_copies",
    "hold_out",
    "joined_copies",
    "picture_groups",
    "splits_among",
]

MANY_GROUPS = 500
"""Groups above which half of them are enough to fit a calibration to."""

Split = tuple[np.ndarray, np.ndarray]
"""Positions of the images to train on, and of the images held out."""


def joined_copies(images: Any, groups: np.ndarray) -> np.ndarray:
    """Group numbers `[n]` of n images or vectors in which equal ones are of one group, too."""
    return join_groups(groups, np.unique([_content_hash(image) for image in images], return_inverse=True)[1])


def _content_hash(image: Any) -> str:
    """Hash the pixels of an image, or the values of a vector, with their type and shape."""
    if isinstance(image, Image.Image):
        image = image.convert("RGBA") if image.mode == "P" else image  # a palette tells what its pixels mean
        kind, content = f"{image.mode} {image.size}", image.tobytes()
    else:
        values = image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
        kind, content = f"{values.dtype} {values.shape}", values.tobytes()
    return blake2b(kind.encode() + content, digest_size=16).hexdigest()


def picture_groups(images: Any, groups: np.ndarray) -> np.ndarray:
    """Group numbers `[n]` in which copies of one picture are of one group; equal vectors may well be independent."""
    is_table = isinstance(images, np.ndarray) and images.ndim == 2
    return groups if is_table else joined_copies(images, groups)


def groups_with_copies(images: Any, groups: np.ndarray | None, n: int) -> np.ndarray | None:
    """Group numbers `[n]` as `picture_groups` has them, where there may be no groups; None if each image is alone."""
    joined = picture_groups(images, group_numbers(groups, n))
    return joined if len(np.unique(joined)) < n else None


def cross_fit_parts(units: np.ndarray, seed: int) -> np.ndarray:
    """Number the parts that calibrations are cross-fitted in: each answers one part, and is fitted on the others.

    Groups are dealt out at random to five parts, more than 500 groups to two.

    Parameters
    ----------
    units : int array `[n]`
        Groups of the images, numbered from 0.
    seed : int
        Decides the parts.

    Returns
    -------
    int array `[n]`
        Parts, from 0 on; images of one group are in one part.
    """
    n = int(units.max()) + 1
    n_parts = min(2 if n > MANY_GROUPS else 5, n)
    return (np.random.default_rng(seed).permutation(n) % n_parts)[units]


def folds(y: np.ndarray, cv: Any, seed: int, groups: np.ndarray | None = None) -> Iterator[Split]:
    """Splits for cross-fitting.

    An image whose class has no other image to train on is trained on in every fold, and held out in none. There is no
    fold where nothing can be held out.

    Parameters
    ----------
    y : int array `[n]`
        Class numbers.
    cv : int, splitter or iterable of splits
        As scikit-learn's `check_cv` takes it. A number of folds that is above the size of the largest class is reduced
        to it.
    seed : int
        Decides the folds that a number asks for.
    groups : array `[n]`, optional
        Images of one group are held out together.

    Raises
    ------
    InvalidInputError
        If there is no split, or one trains on an image that it holds out, or if an image is held out more than once:
        it would count as several.
    """
    if isinstance(cv, int | np.integer):
        units = y if groups is None else y[np.unique(groups, return_index=True)[1]]
        n_splits = min(int(cv), int(np.bincount(units).max()))
        if n_splits < 2:
            return
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        splitter = kind(n_splits, shuffle=True, random_state=seed)
    else:
        splitter = check_cv(cv, y, classifier=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        splits = [(_positions(kept), _positions(out)) for kept, out in splitter.split(np.zeros((len(y), 1)), y, groups)]
    if not splits:
        raise InvalidInputError(
            f"cv={cv!r} has no split; an iterator is empty once it was used: give a number of folds, a splitter, or a "
            "list of splits, such as list(KFold(3).split(X))"
        )
    for kept, out in splits:
        if len(both := np.intersect1d(kept, out)):
            raise InvalidInputError(
                f"a split of cv holds out image {both[0]} and trains on it, so that tier 1 would seem surer than it "
                "is; give splits whose two sides have no image in common"
            )
    times = np.bincount(np.concatenate([out for _, out in splits]), minlength=len(y))
    if times.max(initial=0) > 1:
        raise InvalidInputError(
            f"cv={cv!r} holds out image {times.argmax()} {times.max()} times, and it would count as so many images; "
            "give a number of folds, or a splitter that holds each out at most once, such as StratifiedKFold"
        )
    for kept, out in splits:
        kept, out = _keeping_classes(kept, out, y, groups)
        if len(out):
            yield kept, out


def _positions(side: Any) -> np.ndarray:
    """Positions of the images on a side of a split, which may be given as a mask."""
    side = np.asarray(side)
    return np.flatnonzero(side) if side.dtype == bool else side


def splits_among(kept: np.ndarray, cv: Any, y: np.ndarray, groups: np.ndarray | None) -> Any:
    """A `cv` for the images at the positions `kept` that splits them as the given one splits all images.

    A number stays as it is. Of other splits, (0, 1, 2) and (3, 4) are (0, 1) and (2,) among the images 0, 2 and 4.
    """
    if isinstance(cv, int | float | np.number):
        return cv
    position = np.full(len(y), -1)
    position[kept] = np.arange(len(kept))
    splits = check_cv(cv, y, classifier=True).split(np.zeros((len(y), 1)), y, groups)
    among = [[position[np.asarray(side)] for side in split] for split in splits]
    return [tuple(side[side >= 0] for side in split) for split in among]


def hold_out(y: np.ndarray, share: float, seed: int, groups: np.ndarray | None = None) -> Split:
    """One split that holds out a share of the images, of each class alike as far as its images allow.

    Parameters
    ----------
    y : int array `[n]`
        Class numbers.
    share : float
        In (0, 1).
    seed : int
        Decides the split.
    groups : array `[n]`, optional
        Images of one group are on one side.
    """
    names = np.arange(len(y)) if groups is None else groups
    _, first, unit = np.unique(names, return_index=True, return_inverse=True)
    kinds = y[first]  # a group counts for the class of its first image
    # Groups that hold all images of a class are trained on. Classes (0, 0, 1) in groups (0, 1, 1): only group 1 has 1.
    classes, holders = np.unique(np.stack([y, unit]), axis=1)
    needed = np.isin(np.arange(len(first)), holders[np.bincount(classes)[classes] == 1])
    common = np.flatnonzero(~needed & (np.bincount(kinds[~needed], minlength=y.max() + 1)[kinds] > 1))
    if not len(common):
        return np.arange(len(y)), np.arange(0)
    enough = min(share, 1 - share) * len(common) >= len(np.unique(kinds[common]))
    strata = kinds[common] if enough else None  # with fewer places than classes, chance decides
    n_out = min(int(np.ceil(share * len(common))), len(common) - 1)  # something is left to train on
    _, chosen = train_test_split(common, test_size=n_out, random_state=seed, stratify=strata)
    held = np.isin(unit, chosen)
    return _keeping_classes(np.flatnonzero(~held), np.flatnonzero(held), y, groups)


def _keeping_classes(kept: np.ndarray, out: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Split:
    """The split with all images moved to `kept` whose class would have none there, and their groups with them.

    A group that a splitter has put on both sides already is not moved.
    """
    lost = ~np.isin(y[out], y[kept])
    if groups is not None:
        lost |= np.isin(groups[out], groups[out[lost]]) & ~np.isin(groups[out], groups[kept])
    return np.concatenate([kept, out[lost]]), out[~lost]
