"""Labelled images to evaluate on: read, and sampled by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..data.datasets import MAX_BYTES, MAX_UNREADABLE, numbered
from ..data.decoding import shrunk, stretched
from ..data.holding_out import digests
from ..data.image_files import check_image_shape
from ..data.listing import list_labelled
from ..errors import InvalidInputError, UnknownLabelError, choices
from ..ports import Label
from ..utils.progress import progress_bar

__all__ = [
    "Sample",
    "TrainedOn",
    "notes_on",
    "read_sample",
    "stratified",
]


class TrainedOn(NamedTuple):
    """Images that a model was trained or calibrated on.

    Attributes
    ----------
    known : frozenset of int
        Digests of the images, as `data.holding_out.digests` has them; empty if they are not known.
    shape : (H, W, C) or None
        Shape in which images are hashed; None for their own.
    """

    known: frozenset[int]
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Sample:
    """n labelled images that were read, of all that there are.

    Attributes
    ----------
    images : list of n PIL images
        Stretched to what the model takes, or of their own size.
    y : array `[n]`
        Their labels, as the model has them.
    groups : int array `[n]`
        Numbers of the groups of images that belong together.
    n_listed : int
        Images that there are.
    unreadable : tuple of str
        Files that were left out, each with what is wrong with it.
    trained_on : int
        Images that were left out because the model was trained or calibrated on them.
    given_groups : tuple of n values
        The groups as the source has them; None for an image without one.
    digests : tuple of n int
        Digests of the images; empty if there was nothing to leave out.
    positions : tuple of n int
        Where the images are in the source, from 0 on.
    """

    images: list[Image.Image]
    y: np.ndarray
    groups: np.ndarray
    n_listed: int
    unreadable: tuple[str, ...] = ()
    trained_on: int = 0
    given_groups: tuple[Any, ...] = ()
    digests: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()


def read_sample(
    source: str | Path,
    labels: Sequence[Label],
    shape: Sequence[int] | None,
    *,
    n_images: int | None = None,
    group: str | None = None,
    side: int | None = None,
    seen: TrainedOn | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Sample:
    """Read labelled images, or a sample of them that has every class in its proportion.

    Images that the model was trained or calibrated on are left out, if it is known which those are.

    Parameters
    ----------
    source : path or "digits"
        As for `data.listing.list_labelled`.
    labels : sequence of C labels
        What the model tells apart; the classes of the source are among them, by their names.
    shape : (H, W, C) or None
        What the model takes images as.
    n_images : int, optional
        Images to read at most. Default: all.
    group : str, optional
        Column by which images belong together.
    side : int, optional
        Shorter edge in pixels from which images of any size are averaged down, to no less than this. Default: none are.
    seen : TrainedOn, optional
        Images to leave out. Default: none.
    seed : int
        Decides the sample.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    UnknownLabelError
        For classes that the model does not know.
    InvalidInputError
        If the model takes no image files, the source cannot be read or lists no image, if more than `MAX_UNREADABLE` of
        the images are damaged, if they take more than `MAX_BYTES` of memory, or if none is left.
    """
    check_image_shape(shape)
    listing = list_labelled(source, group)
    y = np.fromiter(listing.class_numbers(), dtype=int)
    if not len(y):
        raise InvalidInputError(f"{source} lists no image; give one that has labelled images")
    own = _known(source, [listing.classes[c] for c in np.unique(y)], labels)
    chosen = np.zeros(len(y), dtype=bool)
    chosen[stratified(y, n_images, seed)] = True
    found: list[_Found] = []
    unreadable: list[str] = []
    n_bytes = trained_on = 0
    with progress_bar(total=int(chosen.sum()), desc="read images", unit="image", leave=None, show=progress) as bar:
        for position, item in ((i, item) for i, item in enumerate(listing.items) if chosen[i]):
            bar.update()
            try:
                image, digest = _taken(item.open(), shape, side, seen)
            except InvalidInputError as error:
                unreadable.append(f"{item.name}: {error}")
                continue
            if seen is not None and digest in seen.known:
                trained_on += 1
                continue
            found.append(_Found(image, own[listing.classes[item.y]], item.group, digest, position))
            n_bytes += image.width * image.height * len(image.getbands())
            _check_bytes(n_bytes, len(found))
    _check_readable(unreadable, int(chosen.sum()))
    if not found:
        raise InvalidInputError(
            "the model was trained or calibrated on all of these images, on which it is over-sure; give others"
        )
    images, names, groups, hashed, positions = zip(*found, strict=True)
    return Sample(
        images=list(images),
        y=np.array(names),
        groups=numbered(groups),
        n_listed=len(y),
        unreadable=tuple(unreadable),
        trained_on=trained_on,
        given_groups=groups,
        digests=() if seen is None else hashed,
        positions=positions,
    )


class _Found(NamedTuple):
    """An image that was read, with its label, group and digest, and its position in the source."""

    image: Image.Image
    label: Label
    group: Any
    digest: int
    position: int


def _check_bytes(n_bytes: int, n_images: int) -> None:
    if n_bytes > MAX_BYTES:
        raise InvalidInputError(
            f"the images take more than the {MAX_BYTES / 2**30:.0f} GiB that are held in memory at most; give "
            f"{n_images} images or fewer, or smaller ones"
        )


def _check_readable(unreadable: Sequence[str], n: int) -> None:
    if len(unreadable) > MAX_UNREADABLE * n:
        raise InvalidInputError(
            f"{len(unreadable)} of {n} images cannot be read, more than {MAX_UNREADABLE:.0%}; the first: "
            f"{'; '.join(unreadable[:3])}; repair or remove them"
        )


def _taken(
    image: Image.Image, shape: Sequence[int] | None, side: int | None, seen: TrainedOn | None
) -> tuple[Image.Image, int]:
    """Bring an image to what the model takes, and hash it in the shape of `seen`; 0 without that."""
    taken = stretched(image, shape)
    if seen is None:
        return shrunk(taken, side), 0
    same = seen.shape == (None if shape is None else tuple(shape))
    hashed = taken if same else stretched(image, seen.shape)
    return shrunk(taken, side), int(digests(np.asarray(hashed)[None])[0])


def notes_on(sample: Sample, source: str | Path) -> list[str]:
    """Sentences on what of a source was not looked at, and why."""
    n_read = len(sample.images) + len(sample.unreadable) + sample.trained_on
    notes = []
    if n_read < sample.n_listed:
        notes.append(
            f"A sample of {n_read:,} of the {sample.n_listed:,} images in {source}, every class in proportion."
        )
    if sample.trained_on:
        left_out = f"{sample.trained_on:,} images in {source} were left out"
        more = "; a larger sample has more others" if n_read < sample.n_listed else ""
        notes.append(f"{left_out}: the model was trained or calibrated on them{more}.")
    if sample.unreadable:
        first = "; ".join(sample.unreadable[:3])
        notes.append(f"{len(sample.unreadable):,} images in {source} were left out, as unreadable: {first}.")
    return notes


def _known(source: str | Path, names: Sequence[str], labels: Sequence[Label]) -> dict[str, Label]:
    """The model's label for each class name of a source."""
    own = {str(label): label for label in labels}
    if unknown := [name for name in names if name not in own]:
        spelt = {name.casefold(): name for name in own}
        case = [f"{name!r} as {spelt[name.casefold()]!r}" for name in unknown if name.casefold() in spelt]
        rename = f"rename the classes: spell {', '.join(case[:3])}" if case else "rename the classes"
        raise UnknownLabelError(
            f"{source} has classes that the model does not know: {choices(unknown)}; it knows {choices(list(own))}: "
            f"give another model, labels for a model of text, or {rename}"
        )
    return own


def stratified(y: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """Sorted positions of n of the images, every class in its proportion as nearly as can be; all for None.

    Of class numbers 0 0 0 0 1 1, three are two of class 0 and one of class 1.
    """
    if n is None or n >= len(y):
        return np.arange(len(y))
    order = np.random.default_rng(seed).permutation(len(y))
    rank = np.empty(len(y))
    for c in np.unique(y):
        own = order[y[order] == c]
        rank[own] = (np.arange(len(own)) + 0.5) / len(own)  # where an image stands in its class, in (0, 1)
    return np.sort(order[np.argsort(rank[order], kind="stable")[:n]])
