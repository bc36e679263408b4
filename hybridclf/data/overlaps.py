"""Detection of crops that overlap: tiles of one picture, or photographs of one scene, at the same scale."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree

__all__ = ["overlapping"]

POINTS, RADIUS, FAINT = 16, 4, 2.0
"""Most points per image, pixels of their surroundings in each direction, and contrast of a point in levels of 255."""

FLOOR = 6.0
"""Contrast, in levels of 255, that is added to each one compared: noise is as strong where a picture is flat."""

DIMENSIONS, NEAREST, CLOSE = 12, 4, 0.5
"""Principal components of surroundings, most matches of a point, and their largest distance."""

AGREEING = 2
"""Points of two images, at least, that are shifted by the same, up to a pixel."""

APART, SHARED = 1 / 8, 1 / 5
"""Smallest shift as a share of a side, below which two images are copies, and smallest common part of an image."""

ALIKE = 0.85
"""Smallest correlation of the common part.

Of 500 images of CIFAR-10 and 11,500 others one pair is above, of photographs of breeds none; of 500 scenes and 3,500
others four, of which some show one place.
"""

BLOCK = 2048
"""Images whose points are searched at a time."""


class _Points(NamedTuple):
    """Points p: their images `[p]`, places (row, column) `[p, 2]`, and surroundings `[p, d]`, standardised."""

    image: np.ndarray
    place: np.ndarray
    around: np.ndarray


def overlapping(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find images that show a part of another one, shifted, at the same scale.

    Striking points (extrema of a difference of Gaussians) are matched by their surroundings. Where some of two images
    agree on a shift, the common part is compared. Of two crops that share half of their area it finds a third to two
    thirds, if they have any detail. Not found are crops of different sizes that were stretched to one. Textures that
    repeat themselves look as if they overlapped.

    Parameters
    ----------
    images, others : uint8 arrays `[n, H, W, C]`, `[m, H, W, C]`

    Returns
    -------
    int array `[P, 2]`
        Positions of pairs, sorted.

    References
    ----------
    D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, for points and their matches.
    """
    nothing = np.empty((0, 2), dtype=int)
    if not len(images) or not len(others):
        return nothing
    first, second = _points(images), _points(others)
    if not len(first.image) or not len(second.image):
        return nothing
    axes = np.linalg.svd(first.around[: 8 * BLOCK], full_matrices=False)[2][:DIMENSIONS].T
    tree = KDTree(second.around @ axes)
    distance, near = tree.query(first.around @ axes, k=NEAREST, distance_upper_bound=CLOSE)
    point, rank = np.nonzero(np.isfinite(distance))
    match = near[point, rank]
    shift = first.place[point] - second.place[match]
    # matches of one pair of images lie together: pairs (0, 5), (0, 5), (1, 2) are cut at 2 into two groups
    order = np.lexsort((second.image[match], first.image[point]))
    pairs = np.stack([first.image[point], second.image[match]], axis=1)[order]
    cuts = np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1
    groups = zip(np.split(pairs, cuts), np.split(shift[order], cuts), strict=True)
    found = [pair[0] for pair, shifts in groups if len(pair) >= AGREEING and _overlap(images, others, pair[0], shifts)]
    return np.array(found, dtype=int).reshape(-1, 2)


def _points(images: np.ndarray) -> _Points:
    parts = [_points_of(images[i : i + BLOCK], i) for i in range(0, len(images), BLOCK)]
    return _Points(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _points_of(images: np.ndarray, start: int) -> _Points:
    """Most striking points of images that are numbered from `start` on."""
    grey = images.mean(axis=3, dtype=np.float32)
    smooth = gaussian_filter(grey, (0, 1, 1))
    strength = np.abs(smooth - gaussian_filter(grey, (0, 2, 2)))
    strength[strength < maximum_filter(strength, (1, 5, 5))] = 0
    inside = np.zeros(grey.shape[1:], dtype=bool)
    inside[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    flat = (strength * inside).reshape(len(grey), -1)
    best = np.argpartition(-flat, min(POINTS, flat.shape[1]) - 1, axis=1)[:, :POINTS]
    image, rank = np.nonzero(np.take_along_axis(flat, best, axis=1) > FAINT)
    place = np.stack(np.divmod(best[image, rank], grey.shape[2]), axis=1)
    rows, columns = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].reshape(2, -1)
    around = smooth[image[:, None], place[:, :1] + rows, place[:, 1:] + columns]
    around = around - around.mean(axis=1, keepdims=True)
    around /= np.linalg.norm(around, axis=1, keepdims=True) + FLOOR
    return _Points(image + start, place, around)


def _overlap(images: np.ndarray, others: np.ndarray, pair: np.ndarray, shifts: np.ndarray) -> bool:
    """Tell whether two images overlap by the shift `[2]` on which most of their points `[p, 2]` agree."""
    shift = np.median(shifts, axis=0).round().astype(int)
    agreeing = (np.abs(shifts - shift).max(axis=1) <= 1).sum()
    if agreeing < AGREEING or np.abs(shift).max() < APART * min(images.shape[1:3]):
        return False
    a, b = (_details(each.astype(np.float32)) for each in (images[pair[0]], others[pair[1]]))
    return any(_correlation(a, b, shift[0] + y, shift[1] + x) > ALIKE for y in (0, -1, 1) for x in (0, -1, 1))


def _details(image: np.ndarray) -> np.ndarray:
    """An image `[H, W, C]` without noise, and without the large areas that sky and ground of any scene have."""
    return gaussian_filter(image, (1, 1, 0)) - gaussian_filter(image, (3, 3, 0))


def _correlation(a: np.ndarray, b: np.ndarray, y: int, x: int) -> float:
    """Correlation of the common part of two images `[H, W, C]`, a's place less b's being (y, x); 0 if that is small."""
    height, width = a.shape[:2]
    a = a[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    b = b[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
    if a.shape[0] * a.shape[1] < SHARED * height * width:
        return 0.0
    a, b = a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + FLOOR * np.sqrt(a.size)))
