"""Labelled training images, decoded once into one array."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d

from ..errors import InvalidInputError
from ..utils.progress import progress_bar
from .image_files import as_item
from .listing import DIGITS, Listing, list_labelled

__all__ = [
    "DIGITS",
    "MAX_BYTES",
    "MAX_UNREADABLE",
    "LabelledImages",
    "channel_statistics",
    "largest_multiple",
    "load_labelled",
    "numbered",
    "typical_side",
]

N_FIRST = 16
"""Images whose size is taken for that of all."""

MAX_BYTES = 4 * 2**30
"""Memory limit of the decoded images; a larger data set is refused."""

MAX_UNREADABLE = 0.05
"""Largest share of damaged files, which are left out. More of them mean that the data set itself is wrong."""


@dataclass(frozen=True)
class LabelledImages:
    """n images and their labels.

    Attributes
    ----------
    pixels : uint8 array `[n, S, S, 3]`
        RGB, stretched to a square.
    y : int array `[n]`
        Class numbers; every class has an image.
    classes : list of C str
        Class names, by number.
    groups : int array `[n]`
        Group numbers ≥ 0. Images of one group belong together; an image without one is a group by itself.
    unreadable : tuple of str
        Files left out, each with the reason.
    names : tuple of n str
        Files, or rows of a table.
    """

    pixels: np.ndarray
    y: np.ndarray
    classes: list[str]
    groups: np.ndarray
    unreadable: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def load_labelled(source: str | Path, size: int, progress: bool = False, group: str | None = None) -> LabelledImages:
    """Read and decode labelled images.

    Parameters
    ----------
    source : path or "digits"
        As for `listing.list_labelled`.
    size : int
        Side in pixels; images are stretched to a square of it.
    progress : bool
        Show a progress bar.
    group : str, optional
        As for `listing.list_labelled`.

    Returns
    -------
    LabelledImages

    Raises
    ------
    InvalidInputError
        If there are fewer than two classes, a class has no image, more than `MAX_UNREADABLE` of the files are damaged,
        the images take more than `MAX_BYTES`, or the column is missing.
    """
    found = list_labelled(source, group)
    _check_memory(found.n, size)
    pixels = np.empty((found.n, size, size, 3), np.uint8)
    # filled from the front, so that a damaged file leaves no hole
    numbers: list[int] = []
    groups: list[Any] = []
    unreadable: list[str] = []
    names: list[str] = []
    for item in progress_bar(found.items, total=found.n, desc="read images", unit="image", leave=None, show=progress):
        try:
            pixels[len(numbers)] = as_item(item.open(), (size, size, 3), None)
            numbers.append(item.y)
            groups.append(item.group)
            names.append(item.name)
        except InvalidInputError as error:
            unreadable.append(f"{item.name}: {error}")
    y = np.array(numbers, dtype=np.int64)
    _check_read(found, y, unreadable)
    return LabelledImages(pixels[: len(y)], y, found.classes, numbered(groups), tuple(unreadable), tuple(names))


def typical_side(source: str | Path, group: str | None = None) -> int:
    """Median of the longer sides in pixels of a data set's first images; 0 if none of them can be read.

    Raises
    ------
    InvalidInputError
        As `load_labelled`, for a source that holds no labelled images.
    """
    sides = []
    for item in islice(list_labelled(source, group).items, N_FIRST):
        with suppress(InvalidInputError):
            sides.append(max(item.open().size))
    return int(np.median(sides)) if sides else 0


def largest_multiple(source: str | Path, unit: int, wanted: int, group: str | None = None) -> int:
    """Largest multiple of a side in pixels, at most `wanted`, in which all images of a data set fit in memory twice.

    A split copies them, so that they and the copies take `MAX_BYTES` together. The result is at least the side itself,
    even if they do not fit.
    """
    n = list_labelled(source, group).n
    fits = [k * unit for k in range(1, wanted // unit + 1) if 2 * _bytes(n, k * unit) <= MAX_BYTES]
    return max(fits, default=unit)


def numbered(groups: Sequence[Any]) -> np.ndarray:
    """Number groups from 0 in order of first appearance; each gap (None, NaN) is a group of its own.

    >>> numbered(["b", None, "a", "b", None])
    array([0, 1, 2, 0, 3])
    """
    numbers: dict[Any, int] = {}
    # (i, None) equals no group that a table can hold
    keys = [(i, None) if _is_missing(group) else group for i, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def as_groups(groups: Any) -> np.ndarray:
    """Groups as an array `[n]` that keeps its gaps: a list with texts and NaN would become texts, "nan" among them."""
    return column_or_1d(np.array(groups, dtype=object) if isinstance(groups, list | tuple) else groups)


def without_gaps(groups: Any) -> np.ndarray:
    """Groups `[n]` as they were given; where some are missing, numbers in their place, each gap one of its own."""
    values = as_groups(groups).tolist()
    return numbered(values) if any(map(_is_missing, values)) else np.asarray(values)


def _is_missing(group: Any) -> bool:
    """Tell None, NaN, NaT and pandas' NA from all else."""
    return group is None or type(group).__name__ == "NAType" or bool(group != group)


def _bytes(n: int, size: int) -> int:
    return 3 * n * size**2


def _check_memory(n: int, size: int) -> None:
    needed = _bytes(n, size)
    if needed > MAX_BYTES:
        raise InvalidInputError(
            f"{n:,} images of {size}x{size} pixels take {needed / 2**30:.1f} GiB, and {MAX_BYTES / 2**30:.0f} GiB is "
            "what is held in memory at most; choose a smaller image size, or give fewer images"
        )


def _check_read(found: Listing, y: np.ndarray, unreadable: list[str]) -> None:
    """Refuse too many damaged files, and a class that has none but damaged ones."""
    if len(unreadable) > MAX_UNREADABLE * found.n:
        raise InvalidInputError(
            f"{len(unreadable)} of {found.n} images cannot be read, more than {MAX_UNREADABLE:.0%}; the first: "
            f"{'; '.join(unreadable[:3])}; repair or remove them"
        )
    missing = np.setdiff1d(np.arange(len(found.classes)), y)
    if len(missing):
        raise InvalidInputError(f"class {found.classes[missing[0]]!r} has no image that can be read; add some")


def channel_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[3]` of the channels of images uint8 `[n, H, W, 3]`."""
    # a histogram per channel, since a float copy of the images would take eight times their memory
    counts = np.zeros((3, 256))
    for block in np.array_split(pixels, 1 + len(pixels) // 1024):
        counts += [np.bincount(block[..., channel].ravel(), minlength=256) for channel in range(3)]
    frequencies, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
    mean = frequencies @ levels
    # E[v²] - E[v]²; rounding may take it below 0 where a channel is constant
    return mean, np.sqrt(np.maximum(frequencies @ levels**2 - mean**2, 1e-6))
