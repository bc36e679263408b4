"""Labelled images of another distribution, with their groups and textures where a table has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.listing import list_labelled
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

    def read(group: str | None = None) -> Sample:
        labels, shape = clf.classes_.tolist(), clf.image_shape_
        show = progress and group is None
        return read_sample(source, labels, shape, n_images=n_images, group=group, seen=seen, progress=show)

    found = read()
    groups = found.given_groups if any(group is not None for group in found.given_groups) else None
    return Shifted(
        str(source), found.images, found.y, groups, _textures(source, clf, read), tuple(notes_on(found, source))
    )


def _textures(source: str | Path, clf: HybridClassifier, read: Callable[[str], Sample]) -> list[Label] | None:
    """Labels of the textures of the images that are read with a column as their group; None without such a column."""
    for column in TEXTURES:
        try:
            classes = list_labelled(source, column).classes
        except InvalidInputError:  # it has no such column: all else of it was read before
            continue
        own = {str(label): label for label in clf.classes_.tolist()}
        return [own.get(_name_of(value, classes)) for value in read(column).given_groups]
    return None


def _name_of(value: Any, classes: Sequence[str]) -> str:
    """Name of a class that a table names, or numbers as its own label column does."""
    numbered = isinstance(value, int) and str(value) not in classes and 0 <= value < len(classes)
    return classes[value] if numbered else str(value)
