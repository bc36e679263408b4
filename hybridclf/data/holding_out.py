"""Which images are held out: by what they show, whole groups at a time, and of every class its share."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InvalidInputError

__all__ = ["digests", "join_groups", "pack", "split", "spread", "unpack"]

SHORT = 0.9
"""Share of the images wanted that must be left to hold out, less one of each class, where some were seen before."""


def digests(pixels: np.ndarray) -> np.ndarray:
    """A number uint32 `[n]` of each image `[n, …]` that follows from its pixels alone."""
    found = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=4).digest() for image in pixels]
    return np.frombuffer(b"".join(found), dtype="<u4").astype(np.uint32)


def pack(numbers: np.ndarray) -> str:
    """Different uint32 numbers as text, for JSON."""
    return base64.b64encode(np.unique(numbers).astype("<u4").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """The sorted numbers that `pack` was given; ValueError for any other text."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<u4").astype(np.uint32)


def join_groups(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers `[n]` of the smallest groups that break up no group of either kind, given by numbers `[n]` ≥ 0."""
    n = int(first.max()) + 1
    links = coo_array((np.ones(len(first), dtype=bool), (first, n + second)), shape=(n + int(second.max()) + 1,) * 2)
    return connected_components(links, directed=False)[1][first]


def split(
    y: np.ndarray,
    groups: np.ndarray,
    digest: np.ndarray,
    share: float,
    seed: int,
    classes: Sequence[str],
    seen: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which images to train on and to hold out: whole groups, that share of every class, and one of each at least.

    Groups are taken in an order that follows from their images and the seed. So neither other images, nor the order or
    the names of files move an image, but where a class holds out one more of more images.

    Parameters
    ----------
    y, groups : int array `[n]`
        Class numbers, and group numbers ≥ 0.
    digest : uint32 array `[n]`
        As `digests` gives them.
    share : float
        Share held out, in (0, 1).
    seed : int
        Decides which.
    classes : sequence of C str
        Names of the classes, for messages.
    seen : uint32 array, optional
        Digests of images that an earlier training saw: they are not held out, nor is what is in one group with them.

    Returns
    -------
    kept, out : int arrays
        Positions: sorted, and group by group in an order that chance decides.

    Raises
    ------
    InvalidInputError
        If a class would have none left on either side, or `seen` leaves clearly less to hold out.
    """
    counts = np.bincount(y)
    wanted = np.where(counts, np.maximum(1, np.round(share * counts)), 0).astype(int)
    for number in np.flatnonzero((wanted >= counts) & (counts > 0)).tolist():
        raise InvalidInputError(
            f"class {classes[number]!r} has {counts[number]} image(s), of which {wanted[number]} would be held out and "
            "none left to train on; add images, or hold out a smaller share"
        )
    key = _keys(groups, digest, seed)
    chosen = spread(y, groups, key, wanted, counts - 1)
    for number in np.setdiff1d(y, y[chosen]).tolist():
        raise InvalidInputError(
            f"class {classes[number]!r} has {counts[number]} images in {len(np.unique(groups[y == number]))} group(s), "
            "of which none can be held out and leave every class something to train on; copies of one picture are one "
            "group: add other images"
        )
    if seen is not None:
        barred = np.isin(groups, groups[np.isin(digest, seen)])
        n_free, chosen = len(chosen), spread(y, groups, key, wanted, counts - 1, barred)
        _check_unseen(y, chosen, n_free, classes)
    return np.setdiff1d(np.arange(len(y)), chosen), chosen


def _check_unseen(y: np.ndarray, chosen: np.ndarray, n_free: int, classes: Sequence[str]) -> None:
    """Check that images of all classes are left to hold out, about as many as without an earlier training."""
    for number in np.setdiff1d(y, y[chosen]).tolist():
        raise InvalidInputError(
            f"of class {classes[number]!r} no image can be held out that the pair to start from was not trained on; "
            "add some"
        )
    if len(chosen) < SHORT * n_free - len(classes):
        raise InvalidInputError(
            f"{n_free} images should be held out, and only {len(chosen)} can be that the pair to start from was not "
            f"trained on; add others, or hold out as few: validation_fraction {len(chosen) / len(y):.2g}"
        )


def spread(
    y: np.ndarray,
    groups: np.ndarray,
    key: np.ndarray,
    wanted: np.ndarray,
    most: np.ndarray,
    barred: np.ndarray | None = None,
) -> np.ndarray:
    """Positions of whole groups, in the order of their keys, that come as close to what is wanted as this order gets.

    A group is taken that brings the classes closer to it; then, for a class without any, the smallest that may be.

    Parameters
    ----------
    y, groups, key : int array `[n]`
        Class numbers, group numbers, and a number by which groups are ordered, the same for all of a group.
    wanted, most : int array `[C]`
        Images to take of each class, and those that may be taken.
    barred : bool array `[n]`, optional
        Images whose groups are not taken.
    """
    order = np.lexsort((groups, key))
    if barred is not None:
        order = order[~barred[order]]
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, bounds) if len(order) else []
    contents = [Counter(y[group].tolist()) for group in members]
    left, room, taken = wanted.tolist(), most.tolist(), np.zeros(len(members), dtype=bool)

    def take(i: int) -> None:
        taken[i] = True
        for number, count in contents[i].items():
            left[number] -= count
            room[number] -= count

    def fits(i: int) -> bool:
        return not taken[i] and all(room[number] >= count for number, count in contents[i].items())

    for i, content in enumerate(contents):
        closer = sum(abs(left[c]) - abs(left[c] - count) for c, count in content.items())
        if closer > 0 and fits(i):
            take(i)
    for number in np.flatnonzero(wanted):
        if left[number] == wanted[number]:
            able = [i for i, content in enumerate(contents) if number in content and fits(i)]
            if able:
                take(min(able, key=lambda i: len(members[i])))
    return np.concatenate([members[i] for i in np.flatnonzero(taken)]) if taken.any() else np.empty(0, dtype=int)


def _keys(groups: np.ndarray, digest: np.ndarray, seed: int) -> np.ndarray:
    """A number `[n]` for each group that follows from its images and the seed: the least of its images' numbers."""
    salt = seed.to_bytes(8, "little")
    own = [hashlib.blake2b(value.tobytes(), digest_size=8, salt=salt).digest() for value in digest.astype("<u4")]
    least = np.full(int(groups.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(least, groups, np.frombuffer(b"".join(own), dtype="<u8").astype(np.uint64))
    return least[groups]
