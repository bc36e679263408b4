"""Labelled images of another distribution, with their groups and textures where a table has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import numbered
from ..data.listing import Listing, list_labelled
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..ports import Label
from .sample import Sample, TrainedOn, notes_on, read_sample

__all__ = ["Shifted", "read_shifted"]

TEXTURES = ("texture", "texture_label")
"""Columns of the class whose texture a picture has."""


@dataclass(frozen=True)
class Shifted:
    """n labelled images of another distribution.

    Attributes
    ----------
    name : str
        What tables call them.
    images : sequence of n images
        As for `HybridClassifier.predict`.
    y : array `[n]`
        Right labels; in a cue conflict these are the shapes.
    groups : sequence of n values or None
        Groups whose accuracies are compared, such as the colour of a digit; None beside an image that has no group.
    textures : sequence of n labels or None
        Labels of the textures, in a cue conflict.
    notes : tuple of str
        Sentences on what was not looked at.
    units : int array `[n]` or None
        Numbers of images that belong together, such as frames of a film, for which the intervals allow; None if each is
        alone.
    """

    name: str
    images: Any
    y: np.ndarray
    groups: Sequence[Any] | None = None
    textures: Sequence[Label] | None = None
    notes: tuple[str, ...] = ()
    units: np.ndarray | None = None


def read_shifted(
    source: str | Path,
    clf: HybridClassifier,
    n_images: int | None = None,
    group: str | None = None,
    seen: TrainedOn | None = None,
    progress: bool = False,
) -> Shifted:
    """Read images of the classifier's classes; their columns "group" and "texture", where there are such.

    Parameters
    ----------
    source : path
        As for `data.listing.list_labelled`.
    clf : HybridClassifier
        Knows the classes.
    n_images : int, optional
        Images to read at most. Default: all.
    group : str, optional
        Column by which images belong together; a note says so where the source has none of that name. Default: each
        image is alone.
    seen : TrainedOn, optional
        Images that it was trained or calibrated on, which are left out. Default: they are not known.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UnknownLabelError
        For classes that the model does not know.
    InvalidInputError
        If the images cannot be read, or none is left.
    """
    labels, shape, side = clf.classes_.tolist(), clf.image_shape_, clf._least_side
    found = read_sample(source, labels, shape, n_images=n_images, side=side, seen=seen, progress=progress)
    together = None if group is None else _with_column(source, group)
    notes = notes_on(found, source)
    if group is not None and together is None:
        notes.append(f"{source} has no column {group!r}: each of its images counts as alone.")
    return Shifted(
        str(source),
        found.images,
        found.y,
        found.given_groups if any(one is not None for one in found.given_groups) else None,
        _textures(source, found, labels),
        tuple(notes),
        None if together is None else numbered(_values(together, found)),
    )


def _with_column(source: str | Path, column: str) -> Listing | None:
    """The source listed with a column as its groups; None without such a column."""
    try:
        return list_labelled(source, column)
    except InvalidInputError:  # it has no such column: all else of it was read before
        return None


def _values(listing: Listing, found: Sample) -> list[Any]:
    """Values of the listed column beside the images that were read."""
    values = [item.group for item in listing.items]
    return [values[i] for i in found.positions]


def _textures(source: str | Path, found: Sample, labels: Sequence[Label]) -> list[Label] | None:
    """Labels of the textures of the images that were read; None without a column of them."""
    own = {str(label): label for label in labels}
    for column in TEXTURES:
        if (listing := _with_column(source, column)) is not None:
            return [own.get(_name_of(value, listing.classes)) for value in _values(listing, found)]
    return None


def _name_of(value: Any, classes: Sequence[str]) -> str:
    """Name of a class that a table names, or numbers as its own label column does."""
    is_number = isinstance(value, int) and str(value) not in classes and 0 <= value < len(classes)
    return classes[value] if is_number else str(value)
