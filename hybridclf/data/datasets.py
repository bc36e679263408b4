"""Labelled training images, from a folder per class, Parquet or scikit-learn's digits, decoded once into one array."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ..atomic import in_utf8
from ..errors import InvalidInputError
from ..utils.progress import progress_bar
from . import parquet
from .image_files import as_item, image_paths, open_image

__all__ = ["DIGITS", "LabelledImages", "channel_statistics", "load_labelled"]

DIGITS = "digits"
"""Name of scikit-learn's handwritten digits, given in place of a path."""

MAX_BYTES = 4 * 2**30
"""Memory limit of the decoded images; a larger data set is refused."""

MAX_UNREADABLE = 0.05
"""Largest share of damaged files, which are left out. More of them mean that the data set itself is wrong."""

_SPLITS = {"train", "test", "val", "valid", "validation"}
_LAYOUT = "a folder with a subfolder of images per class, a Parquet file of images, or digits"


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
    """

    pixels: np.ndarray
    y: np.ndarray
    classes: list[str]
    groups: np.ndarray
    unreadable: tuple[str, ...] = ()


class _Item(NamedTuple):
    """One image, not decoded yet."""

    name: str
    open: Callable[[], Image.Image]
    y: int
    group: Any = None


@dataclass(frozen=True)
class _Source:
    """The n items of a data set, not decoded yet, and its classes."""

    items: Iterable[_Item]
    n: int
    classes: list[str]


def load_labelled(source: str | Path, size: int, progress: bool = False, group: str | None = None) -> LabelledImages:
    """Read and decode labelled images.

    Parameters
    ----------
    source : path or "digits"
        A folder with a subfolder per class (images anywhere in it count, hidden ones and other files do not), a Parquet
        file in the layout of a Hugging Face image data set or the folder of its parts, or scikit-learn's digits.
    size : int
        Side in pixels; images are stretched to a square of it.
    progress : bool
        Show a progress bar.
    group : str, optional
        Parquet column of groups, such as the film that a frame is from. Default: "group", if there is one.

    Returns
    -------
    LabelledImages

    Raises
    ------
    InvalidInputError
        If there are fewer than two classes, a class has no image, more than `MAX_UNREADABLE` of the files are damaged,
        the images take more than `MAX_BYTES`, or the column is missing.
    """
    found = _find(source, group)
    _check_classes(source, found)
    _check_memory(found.n, size)
    pixels = np.empty((found.n, size, size, 3), np.uint8)
    # filled from the front, so that a damaged file leaves no hole
    numbers: list[int] = []
    groups: list[Any] = []
    unreadable: list[str] = []
    for item in progress_bar(found.items, total=found.n, desc="read images", unit="image", leave=None, show=progress):
        try:
            pixels[len(numbers)] = as_item(item.open(), (size, size, 3), None)
            numbers.append(item.y)
            groups.append(item.group)
        except InvalidInputError as error:
            unreadable.append(f"{item.name}: {error}")
    y = np.array(numbers, dtype=np.int64)
    _check_read(found, y, unreadable)
    return LabelledImages(pixels[: len(y)], y, found.classes, _numbered(groups), tuple(unreadable))


def _numbered(groups: Sequence[Any]) -> np.ndarray:
    """Number groups from 0 in order of first appearance; each None is a group of its own.

    >>> _numbered(["b", None, "a", "b", None])
    array([0, 1, 2, 0, 3])
    """
    numbers: dict[Any, int] = {}
    # (i, None) equals no group that a table can hold
    keys = [(i, None) if group is None else group for i, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _find(source: str | Path, group: str | None) -> _Source:
    """Find the items of a data set by the kind of its source."""
    path = Path(source)
    if source != DIGITS and not path.exists():
        raise InvalidInputError(f"there is no {path}; give {_LAYOUT}")
    if source != DIGITS and (path.is_file() or any(path.glob("*.parquet"))):
        return _in_parquet(path, group)
    if group is not None:
        raise InvalidInputError(f"{source} has no column {group!r}; only Parquet has columns to group images by")
    if source == DIGITS:
        return _digits()
    return _in_folders(path)


def _digits() -> _Source:
    """List scikit-learn's digits, their 0 to 16 scaled to 8 bits."""
    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in digits.images]
    labelled = enumerate(zip(images, digits.target.tolist(), strict=True))
    items = [_Item(f"digit {i}", partial(_same, image), y) for i, (image, y) in labelled]
    return _Source(items, len(items), [str(name) for name in digits.target_names])


def _same(image: Image.Image) -> Image.Image:
    return image


def _in_folders(path: Path) -> _Source:
    """List the images of a folder that has one subfolder per class."""
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = [in_utf8(folder.name) for folder in folders]
    if not folders:
        raise InvalidInputError(f"{path} has no subfolders; give {_LAYOUT}")
    # the folder above the classes: its train and test would become the two classes
    if len(names) > 1 and _SPLITS.issuperset(name.lower() for name in names):
        raise InvalidInputError(f"{path} holds {', '.join(names)}, which are no classes; give {folders[0]} or the like")
    items = []
    for y, folder in enumerate(folders):
        files = image_paths([folder])
        if files == [folder]:  # image_paths hands an empty folder back
            raise InvalidInputError(f"class {folder.name!r} has no image in {folder}; add some, or remove the folder")
        items += [_Item(str(file), partial(open_image, file), y) for file in files]
    return _Source(items, len(items), names)


def _in_parquet(path: Path, group: str | None) -> _Source:
    table = parquet.find(path, group)
    return _Source(_parquet_items(table), table.n_rows, table.classes)


def _parquet_items(table: parquet.ImageTable) -> Iterator[_Item]:
    for i, (content, y, group) in enumerate(table.rows()):
        yield _Item(f"{table.name}, row {i}", partial(_decode, content), y, group)


def _decode(content: bytes | None) -> Image.Image:
    if not content:
        raise InvalidInputError("it has no bytes; files that a table only names are not followed")
    return open_image(BytesIO(content))


def _check_classes(source: str | Path, found: _Source) -> None:
    """Refuse fewer than two classes, and two classes of one name."""
    if len(found.classes) < 2:
        raise InvalidInputError(
            f"{source} holds {' and '.join(map(repr, found.classes)) or 'no class'}; a classifier needs at least 2 "
            f"classes: give {_LAYOUT}"
        )
    twice = next((name for name in found.classes if found.classes.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"{source} has several classes named {twice!r}; rename all but one")


def _check_memory(n: int, size: int) -> None:
    needed = 3 * n * size**2
    if needed > MAX_BYTES:
        raise InvalidInputError(
            f"{n:,} images of {size}x{size} pixels take {needed / 2**30:.1f} GiB, and {MAX_BYTES / 2**30:.0f} GiB is "
            "what is held in memory at most; choose a smaller image size, or give fewer images"
        )


def _check_read(found: _Source, y: np.ndarray, unreadable: list[str]) -> None:
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
