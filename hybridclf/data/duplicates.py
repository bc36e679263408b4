"""Detection of duplicates: images that are equal or nearly so, such as re-encoded, resized or cropped copies."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["duplicate_groups"]

TOLERANCE = 0.08
"""Largest difference of two copies, as a share of their contrast.

A copy saved as JPEG, resized, slightly noisy or cropped by a pixel differs by 0.02 to 0.08; distinct photographs hardly
ever differ by less than 0.2.
"""

FLOOR = 12.0
"""Contrast, in levels of 255, added to every picture's own: noise is as strong where a picture is flat."""

GRID, COARSE = 16, 8
"""Cells per side of the full comparison, and of the coarse search for candidates."""

WIDER = 4.5
"""Tolerance of the coarse search, in multiples of `TOLERANCE`: pictures are not aligned yet there."""

NEAREST = 8
"""Most candidates per image that are compared in full: a set of look-alikes has millions."""

REACH = 0.15
"""Largest difference of two copies' mean levels, as a share of their contrast."""

ROWS, PAIRS = 512, 256
"""Block sizes: images per coarse search, and candidates per full comparison."""


def duplicate_groups(images: np.ndarray, mirror: bool = True) -> np.ndarray:
    """Group images that are copies of one another: equal, re-encoded, resized, slightly noisy or cropped.

    Pictures are averaged in a grid, blurred and compared by the tangent distance, which ignores a shift or stretch by a
    fraction of a cell. Groups are connected components: two copies of one picture share a group even if they differ
    more from each other. Time grows with the square of n: 50,000 images take about ten seconds.

    Parameters
    ----------
    images : array `[n, H, W, C]` or `[n, H, W]`
        Values from 0 to 255.
    mirror : bool
        Count mirrored copies too.

    Returns
    -------
    int array `[n]`
        Group numbers from 0, in the order of each group's first image.

    References
    ----------
    P. Simard, Y. LeCun, J. Denker, "Efficient pattern recognition using a new transformation distance", NIPS 1993.
    """
    if not len(images):
        return np.empty(0, dtype=np.int64)
    size = min(images.shape[1], GRID), min(images.shape[2], GRID)
    # block by block: a float32 copy of all images would take four times their memory
    pictures = torch.cat([_blurred(images[i : i + ROWS], size) for i in range(0, len(images), ROWS)])
    # sorted by mean level, so that the coarse search compares each block with a contiguous range only
    order = pictures.mean(dim=(1, 2, 3)).argsort()
    pictures = pictures[order]
    pairs = [_alike(pictures, pictures)]
    if mirror:
        pairs.append(_alike(pictures, pictures.flip(3)))
    first, second = order[torch.cat(pairs, dim=1)].numpy()
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(images),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _blurred(images: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Average in cells `[n, C, h, w]` and blur them by (1, 2, 1)/4 along both axes."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    pixels = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
    cells = F.pad(F.adaptive_avg_pool2d(pixels, size), (1, 1, 1, 1), mode="replicate")
    # two means of neighbours in a row: (1, 1)/2 * (1, 1)/2 = (1, 2, 1)/4
    return F.avg_pool2d(F.avg_pool2d(cells, 2, stride=1), 2, stride=1)


def _alike(pictures: Tensor, others: Tensor) -> Tensor:
    """Find copies: positions `[2, P]` of pictures `[n, C, h, w]`, sorted by mean level, and of later others."""
    contrast, found = _contrast(pictures), [torch.empty(2, 0, dtype=torch.long)]
    for candidates in _close(pictures, others, contrast):
        for i, j in zip(*(half.split(PAIRS) for half in candidates), strict=True):
            difference = _difference(pictures[i], others[j]) / (contrast[i] * contrast[j]).sqrt()
            found.append(torch.stack([i, j])[:, difference < TOLERANCE])
    return torch.cat(found, dim=1)


def _contrast(pictures: Tensor) -> Tensor:
    """Standard deviation `[n]` of each picture's values, raised by `FLOOR`."""
    return (pictures.flatten(1).var(dim=1, correction=0) + FLOOR**2).sqrt()


def _close(pictures: Tensor, others: Tensor, contrast: Tensor) -> Iterator[Tensor]:
    """Search candidates block by block: positions `[2, P]` of pictures and of later, coarsely similar others."""
    size = min(pictures.shape[2], COARSE), min(pictures.shape[3], COARSE)
    rows, columns = (F.adaptive_avg_pool2d(each, size).flatten(1) for each in (pictures, others))
    middle = rows.mean(dim=0)  # centred: a² - 2ab + b² cancels digits where a and b are large
    # all squared distances of a block as one matrix product: |a - b|² = (a, |a|², 1) · (-2b, 1, |b|²)
    left, right = _factors(rows - middle, contrast), _factors(columns - middle, contrast)
    right = torch.cat([-2 * right[:, :-2], right[:, -1:], right[:, -2:-1]], dim=1)
    limit = rows.shape[1] * (WIDER * TOLERANCE) ** 2
    level = pictures.mean(dim=(1, 2, 3))
    for start in range(0, len(rows), ROWS):
        block = slice(start, start + ROWS)
        # levels are sorted: beyond `end` every picture is too bright to be a copy
        end = int(torch.searchsorted(level, level[block].max() + REACH * contrast[block].max(), right=True))
        squared = left[block] @ right[start:end].T  # [rows, end - start], over both contrasts
        i, j = (squared < limit).nonzero(as_tuple=True)
        later = j > i  # each two pictures once, and none with itself
        i, j = i[later], j[later]
        nearest = _nearest(i, squared[i, j])
        yield torch.stack([i[nearest], j[nearest]]) + start


def _factors(x: Tensor, contrast: Tensor) -> Tensor:
    """Extend vectors `[n, d]` to (x, |x|², 1) / contrast `[n, d + 2]`, the factors of a squared distance."""
    return torch.cat([x, x.square().sum(dim=1, keepdim=True), torch.ones(len(x), 1)], dim=1) / contrast[:, None]


def _nearest(row: Tensor, distance: Tensor) -> Tensor:
    """Positions of the `NEAREST` smallest distances `[P]` of each row; rows `[P]` are sorted.

    With `NEAREST` = 1, rows (0, 0, 1) and distances (5, 3, 4) give positions (1, 2).
    """
    order = distance.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]  # by row, and by distance within a row
    # rank within the row: the position less that of the row's first entry
    rank = torch.arange(len(row)) - torch.searchsorted(row, row)
    return order[rank < NEAREST]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared difference `[P]` of pictures `[P, C, h, w]` after the best small shift and stretch.

    Pictures of fewer cells than `GRID` are compared as they are: a shift by a cell is no small change there.
    """
    change = (b - a).flatten(1)
    if min(a.shape[2:]) == GRID:
        change = change - _explained(_tangents((a + b) / 2), change)
    return change.square().mean(dim=1).sqrt()


def _tangents(pictures: Tensor) -> Tensor:
    """Changes `[P, 4, C·h·w]` by a shift of one cell and by a stretch of one at either end, along each axis."""
    down, across = torch.gradient(pictures, dim=(2, 3))
    place = torch.linspace(-1, 1, GRID)
    changes = [down, across, down * place[:, None], across * place]
    return torch.stack([change.flatten(1) for change in changes], dim=1)


def _explained(tangents: Tensor, change: Tensor) -> Tensor:
    """Project changes `[P, d]` on the tangents `[P, 4, d]`, with weights in [-1, 1]: ridge regression."""
    gram = tangents @ tangents.mT
    ridge = 1e-3 + 2.5e-3 * gram.diagonal(dim1=1, dim2=2).sum(dim=1)  # flat pictures have no tangents
    weights = torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(4), tangents @ change[:, :, None])
    return (weights.clamp(-1, 1) * tangents).sum(dim=1)
