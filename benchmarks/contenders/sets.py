"""Data sets of a folder: what is trained on, and what is asked about."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridclf.data import parquet
from hybridclf.data.arrays import block_means
from hybridclf.data.datasets import load_labelled
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.corruptions import STRENGTHS, corrupted

__all__ = ["Questions", "Row", "find_rows", "questions"]

GROUPS = ("group", "track")
"""Columns of images that belong together, such as the frames of one film, which are held out together."""

PARTS = ("colour", "texture_label")
"""Columns by whose values the worst accuracy is reported."""

SENTENCES = ("sentence", "query")
"""Columns of sets whose label says whether a sentence is true of the picture."""

TRAIN, TEST = "-train.parquet", "-test"

TAIL = 20
"""Images of the most frequent class over those of the rarest, where the tail is long."""

SEVERITY = 3
"""Severity of all corruptions, which the images take in turn."""


@dataclass(frozen=True)
class Row:
    """A training set and a test set.

    Attributes
    ----------
    name : str
        Name in the table.
    training : str
        Name of the training set; rows of one training share their contenders.
    train, test : Path
        Parquet files.
    kind : str
        "clean", "shift", "few", "tail" or "corrupted".
    group : str or None
        Column of groups of the training set.
    """

    name: str
    training: str
    train: Path
    test: Path
    kind: str
    group: str | None


@dataclass(frozen=True)
class Questions:
    """Test images of a row.

    Attributes
    ----------
    pixels : uint8 array `[n, S, S, 3]`
        Images.
    photos : uint8 array `[n, P, P, 3]` or None
        The same images for a pair behind features.
    y : int array `[n]`
        Class numbers.
    parts : array `[n]` or None
        Parts by which the worst accuracy is reported.
    """

    pixels: np.ndarray
    photos: np.ndarray | None
    y: np.ndarray
    parts: np.ndarray | None


def find_rows(data: Path, work: Path, names: list[str] | None, few: list[int], extra: set[str]) -> list[Row]:
    """Find the rows of a folder with NAME-train.parquet and NAME-test.parquet.

    Further files NAME-test*.parquet, and test files of the same classes without a training set, are shifted data.

    Parameters
    ----------
    data : Path
        The folder.
    work : Path
        Folder for smaller training sets that are made here.
    names : list of str or None
        Names of the sets; None: all whose training images have labels.
    few : list of int
        Numbers of training images per class of further rows.
    extra : set of "tail" and "corrupted"
        Further rows of every set.
    """
    trains = {path.name.removesuffix(TRAIN): path for path in sorted(data.glob(f"*{TRAIN}"))}
    chosen = [name for name, path in trains.items() if _classes(path)] if names is None else names
    for name in chosen:
        if name not in trains:
            raise SystemExit(f"{data} has no {name}{TRAIN}; it has {', '.join(trains)}")
    return [row for name in chosen for row in _rows(name, trains, data, work, few, extra)]


def _rows(name: str, trains: dict[str, Path], data: Path, work: Path, few: list[int], extra: set[str]) -> list[Row]:
    """All rows of one data set."""
    train, test = trains[name], data / f"{name}{TEST}.parquet"
    group = next((column for column in GROUPS if column in pq.read_schema(train).names), None)
    rows = [Row(name, name, train, test, "clean", group)]
    if "corrupted" in extra:
        rows.append(Row(f"{name}, corrupted", name, train, test, "corrupted", group))
    for path in _shifted(name, trains, data):
        shift = path.stem.removeprefix(name).replace(TEST, "")  # "NAME-testdark" is "dark"
        rows.append(Row(f"{name}: {shift}", name, train, path, "shift", group))
    smaller = {f"{name}, {n} a class": np.full(len(_classes(train)), n) for n in few}
    if "tail" in extra:
        smaller[f"{name}, long tail"] = _tail(_labels(train))
    for title, counts in smaller.items():
        path = _subset(train, counts, work / "data" / f"{title.replace(', ', '-').replace(' ', '-')}.parquet")
        rows.append(Row(title, title, path, test, "tail" if "tail" in title else "few", group))
    return rows


def _shifted(name: str, trains: dict[str, Path], data: Path) -> list[Path]:
    """Test files of the same classes beside the set's own."""
    own = [path for path in sorted(data.glob(f"{name}{TEST}*.parquet")) if path.stem != f"{name}{TEST}"]
    others = [path for path in sorted(data.glob(f"*{TEST}.parquet")) if path.name.split(TEST)[0] not in trains]
    return own + [path for path in others if _classes(path) and _classes(path) == _classes(trains[name])]


def _classes(path: Path) -> list[str]:
    """Class names; none if the images have no classes."""
    if set(SENTENCES) & set(pq.read_schema(path).names):
        return []
    try:
        return parquet.find(path).classes
    except InvalidInputError:
        return []


def _labels(path: Path) -> np.ndarray:
    return pq.read_table(path, columns=["label"])["label"].to_numpy()


def _tail(y: np.ndarray) -> np.ndarray:
    """Images per class that fall geometrically, from the smallest class's number down to a `TAIL`th of it."""
    n_classes, most = len(np.unique(y)), np.bincount(y).min()
    return np.maximum(2, np.round(most * TAIL ** -np.linspace(0, 1, n_classes))).astype(int)


def _subset(train: Path, counts: np.ndarray, path: Path) -> Path:
    """Write so many random images of each class to a file of its own."""
    if not path.exists():
        y, rng = _labels(train), np.random.default_rng(0)
        places = [
            rng.permutation(np.flatnonzero(y == label))[:n] for label, n in zip(np.unique(y), counts, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(train).take(pa.array(np.sort(np.concatenate(places)))), path)
    return path


def questions(row: Row, side: int, limit: int, classes: np.ndarray, photo_side: int | None = None) -> Questions:
    """Read a row's test images, at most so many, at random; corrupted ones have a corruption each, in turn.

    An image is corrupted once, in the larger of its sizes; the smaller one has its averages. So all methods of a row
    answer for the same corrupted images.

    Parameters
    ----------
    row : Row
        The row.
    side : int
        Side in pixels of the images.
    limit : int
        Most images.
    classes : array `[C]`
        Sorted names, positions among which are class numbers.
    photo_side : int, optional
        Side of the images as photos too, a multiple of the other. Default: there are no photos.
    """
    found = load_labelled(row.test, side, progress=True)
    chosen = np.sort(np.random.default_rng(0).permutation(len(found.y))[:limit])
    pixels, column = found.pixels[chosen], next((c for c in PARTS if c in pq.read_schema(row.test).names), None)
    photos = None if photo_side is None else load_labelled(row.test, photo_side, progress=True).pixels[chosen]
    # only where no image was left out are the table's rows those of the images
    values = None if column is None or found.unreadable else pq.read_table(row.test)[column].to_numpy()[chosen]
    if row.kind == "corrupted" and photos is not None:
        photos = _in_turn(photos)
        pixels = block_means(photos, photos.shape[1] // side)
    elif row.kind == "corrupted":
        pixels = _in_turn(pixels)
    y = np.searchsorted(classes, np.array(found.classes)[found.y[chosen]])
    return Questions(pixels, photos, y, values)


def _in_turn(images: np.ndarray) -> np.ndarray:
    """Copies of images, each under one of all corruptions."""
    copies, n = images.copy(), len(STRENGTHS)
    for i, name in enumerate(STRENGTHS):
        copies[i::n] = corrupted(images[i::n], name, SEVERITY)
    return copies
