"""Splitting off held-out images: by content, in whole groups, and stratified by class."""

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
"""Smallest share of the wanted images that must be free to hold out if some were seen before, less one per class."""


def digests(pixels: np.ndarray) -> np.ndarray:
    """Hash each image `[n, …]` to a number, uint32 `[n]`, by its pixels alone."""
    found = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=4).digest() for image in pixels]
    return np.frombuffer(b"".join(found), dtype="<u4").astype(np.uint32)


def pack(numbers: np.ndarray) -> str:
    """Encode the distinct uint32 numbers as base64 text, for JSON."""
    return base64.b64encode(np.unique(numbers).astype("<u4").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Decode the sorted numbers that `pack` encoded; ValueError for any other text."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<u4").astype(np.uint32)


def join_groups(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Merge two groupings `[n]` ≥ 0 of the same images: the smallest groups that break up none of either kind.

    >>> join_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    array([0, 0, 0, 1], dtype=int32)
    """
    # a graph of all groups, in which every image links its group of the first kind to that of the second
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
    uses: tuple[str, str] = ("train on", "hold out"),
    strict: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into training and held-out ones: whole groups, about a share of every class and at least one image.

    Groups are taken in an order that their images and the seed decide. So adding images, or renaming or reordering
    files, moves an image only if its class now holds out more.

    Parameters
    ----------
    y, groups : int array `[n]`
        Class numbers, and group numbers ≥ 0.
    digest : uint32 array `[n]`
        Hashes of the images, by `digests`.
    share : float
        Share held out, in (0, 1).
    seed : int
        Decides the order of the groups.
    classes : sequence of C str
        Names of the classes, for messages.
    seen : uint32 array, optional
        Digests of images that an earlier training saw. Their whole groups stay in training.
    uses : (str, str)
        Words for what the images that are kept are for, and those held out, for messages.
    strict : bool
        Refuse if `seen` leaves clearly fewer to hold out than the share.

    Returns
    -------
    kept, out : int arrays
        Positions of the training images, sorted, and of the held-out ones, group by group in random order.

    Raises
    ------
    InvalidInputError
        If a class would have no image left on either side, or `seen` leaves clearly fewer to hold out and `strict`.
    """
    counts = np.bincount(y)
    wanted = np.where(counts, np.maximum(1, np.round(share * counts)), 0).astype(int)
    for number in np.flatnonzero(counts == 1).tolist():
        raise InvalidInputError(
            f"class {classes[number]!r} has one image, and at least 2 are needed: one to {uses[0]} and one to "
            f"{uses[1]}; add another picture (no copy of this one), take the class out, or mend its name if that is a "
            "slip"
        )
    for number in np.flatnonzero((wanted >= counts) & (counts > 0)).tolist():
        raise InvalidInputError(
            f"class {classes[number]!r} has {counts[number]} image(s), of which {wanted[number]} would be held out and "
            f"none left to {uses[0]}; add images, or hold out a smaller share"
        )
    key = _keys(groups, digest, seed)
    chosen = spread(y, groups, key, wanted, counts - 1)
    for number in np.setdiff1d(y, y[chosen]).tolist():
        raise InvalidInputError(
            f"class {classes[number]!r} has {counts[number]} images in {len(np.unique(groups[y == number]))} group(s), "
            f"of which none can be held out and leave every class something to {uses[0]}; copies of one picture are "
            "one group: add other images"
        )
    if seen is not None:
        # split once more, without the groups that were seen, to compare with the split that nothing bars
        barred = np.isin(groups, groups[np.isin(digest, seen)])
        n_free, chosen = len(chosen) if strict else 0, spread(y, groups, key, wanted, counts - 1, barred)
        _check_unseen(y, chosen, n_free, classes)
    return np.setdiff1d(np.arange(len(y)), chosen), chosen


def _check_unseen(y: np.ndarray, chosen: np.ndarray, n_free: int, classes: Sequence[str]) -> None:
    """Check that every class has images to hold out, in all about as many as without an earlier training."""
    for number in np.setdiff1d(y, y[chosen]).tolist():
        raise InvalidInputError(
            f"of class {classes[number]!r} no image can be held out that the earlier model was not trained on, nor on "
            "a copy of it; add others"
        )
    if len(chosen) < SHORT * n_free - len(classes):
        raise InvalidInputError(
            f"{n_free} images should be held out, and only {len(chosen)} can be that the earlier model was not trained "
            f"on; add others, or hold out a smaller share (validation_fraction, --val): {len(chosen) / len(y):.2g}"
        )


def spread(
    y: np.ndarray,
    groups: np.ndarray,
    key: np.ndarray,
    wanted: np.ndarray,
    most: np.ndarray,
    barred: np.ndarray | None = None,
) -> np.ndarray:
    """Choose whole groups that come close to the wanted number of images per class.

    Greedy, in the order of the keys: a group is taken if it brings the counts closer to what is wanted. Then every
    class that still has none gets the smallest group that fits.

    Parameters
    ----------
    y, groups, key : int array `[n]`
        Class numbers, group numbers, and sort keys, equal within a group.
    wanted, most : int array `[C]`
        Images to take of each class, and the most that may be taken.
    barred : bool array `[n]`, optional
        Images whose groups are not taken.

    Returns
    -------
    int array
        Positions, group by group in the order of the keys.
    """
    # groups in the order of their keys, each a run of positions: groups (7, 3, 7) of keys (1, 0, 1) give [1], [0, 2]
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
        # by how much the group reduces the distance to what is wanted, summed over its classes
        closer = sum(abs(left[c]) - abs(left[c] - count) for c, count in content.items())
        if closer > 0 and fits(i):
            take(i)
    for number in np.flatnonzero(wanted):
        if left[number] == wanted[number]:  # every group of this class overshot some class
            able = [i for i, content in enumerate(contents) if number in content and fits(i)]
            if able:
                take(min(able, key=lambda i: len(members[i])))
    return np.concatenate([members[i] for i in np.flatnonzero(taken)]) if taken.any() else np.empty(0, dtype=int)


def _keys(groups: np.ndarray, digest: np.ndarray, seed: int) -> np.ndarray:
    """Sort keys `[n]` of the groups: the smallest salted hash of a group's images, so that seed and content decide."""
    salt = seed.to_bytes(8, "little")
    own = [hashlib.blake2b(value.tobytes(), digest_size=8, salt=salt).digest() for value in digest.astype("<u4")]
    least = np.full(int(groups.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(least, groups, np.frombuffer(b"".join(own), dtype="<u8").astype(np.uint64))
    return least[groups]
