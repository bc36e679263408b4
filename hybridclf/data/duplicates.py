"""Copies of a picture: images that are equal, or nearly so, whatever was done to their files."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["duplicate_groups"]

TOLERANCE = 0.08
"""Difference of two copies at most, as a share of their contrast.

A copy that was saved as JPEG, resized, made a little noisy or cropped by a pixel differs by 0.02 to 0.08; of distinct
photographs hardly any two differ by less than 0.2.
"""

FLOOR = 12.0
"""Levels of 255 that are added to a contrast, as noise does not fade where a picture is flat."""

GRID, COARSE = 16, 8
"""Cells a side in which pictures are compared, and in which pairs are looked for that may be copies."""

WIDER = 4.5
"""How many times further apart than the tolerance such pairs may be, as they are not yet put on top of one another."""

NEAREST = 8
"""Such pairs of an image with later ones that are compared, at most: sets of look-alikes have millions."""

REACH = 0.15
"""Difference of two copies' mean levels at most, as a share of their contrast."""

ROWS, PAIRS = 512, 256
"""Images that are compared with all others, and pairs that are compared in full, at a time."""


def duplicate_groups(images: np.ndarray, mirror: bool = True) -> np.ndarray:
    """Groups of images that are copies of one another, equal or nearly so: re-encoded, resized, noisy, cropped a bit.

    Pictures are averaged in a grid, blurred and compared as the tangent distance does (Simard et al., 1993): what a
    shift or stretch by a fraction of a cell explains is no difference. Groups are connected: two copies of one picture
    are in one group even if they differ more from each other. Time grows with the square of n: 50,000 images take
    about ten seconds.

    Parameters
    ----------
    images : array `[n, H, W, C]` or `[n, H, W]`
        Values from 0 to 255.
    mirror : bool
        Whether mirrored copies count.

    Returns
    -------
    int array `[n]`
        Numbers of the groups, from 0, in the order of their first images.
    """
    if not len(images):
        return np.empty(0, dtype=np.int64)
    pictures = _pictures(images)
    order = pictures.mean(dim=(1, 2, 3)).argsort()
    pictures = pictures[order]
    pairs = [_alike(pictures, pictures)]
    if mirror:
        pairs.append(_alike(pictures, pictures.flip(3)))
    first, second = order[torch.cat(pairs, dim=1)].numpy()
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(images),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _pictures(images: np.ndarray) -> Tensor:
    """Images averaged in a grid of cells and blurred, float32 `[n, C, h, w]`."""
    size = min(images.shape[1], GRID), min(images.shape[2], GRID)
    parts = [_blurred(_channels_first(images[i : i + ROWS]), size) for i in range(0, len(images), ROWS)]
    return torch.cat(parts)


def _channels_first(images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    return pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]


def _blurred(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells `[n, C, h, w]`, each mixed with its neighbours as (1, 2, 1)/4 along both axes."""
    cells = F.pad(F.adaptive_avg_pool2d(pixels, size), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(cells, 2, stride=1), 2, stride=1)


def _alike(pictures: Tensor, others: Tensor) -> Tensor:
    """Positions `[2, P]` of pictures `[n, C, h, w]`, sorted by mean level, and of later others that are copies."""
    contrast, found = _contrast(pictures), [torch.empty(2, 0, dtype=torch.long)]
    for candidates in _close(pictures, others, contrast):
        for i, j in zip(*(half.split(PAIRS) for half in candidates), strict=True):
            difference = _difference(pictures[i], others[j]) / (contrast[i] * contrast[j]).sqrt()
            found.append(torch.stack([i, j])[:, difference < TOLERANCE])
    return torch.cat(found, dim=1)


def _contrast(pictures: Tensor) -> Tensor:
    """Standard deviation `[n]` of each picture's values, and a little."""
    return (pictures.flatten(1).var(dim=1, correction=0) + FLOOR**2).sqrt()


def _close(pictures: Tensor, others: Tensor, contrast: Tensor) -> Iterator[Tensor]:
    """Positions `[2, P]` of pictures and later others that are coarsely alike, block by block."""
    size = min(pictures.shape[2], COARSE), min(pictures.shape[3], COARSE)
    rows, columns = (F.adaptive_avg_pool2d(each, size).flatten(1) for each in (pictures, others))
    middle = rows.mean(dim=0)
    left, right = _factors(rows - middle, contrast), _factors(columns - middle, contrast)
    right = torch.cat([-2 * right[:, :-2], right[:, -1:], right[:, -2:-1]], dim=1)
    limit = rows.shape[1] * (WIDER * TOLERANCE) ** 2
    level = pictures.mean(dim=(1, 2, 3))
    for start in range(0, len(rows), ROWS):
        block = slice(start, start + ROWS)
        end = int(torch.searchsorted(level, level[block].max() + REACH * contrast[block].max(), right=True))
        squared = left[block] @ right[start:end].T  # over the contrasts
        i, j = (squared < limit).nonzero(as_tuple=True)
        later = j > i
        i, j = i[later], j[later]
        nearest = _nearest(i, squared[i, j])
        yield torch.stack([i[nearest], j[nearest]]) + start


def _factors(x: Tensor, contrast: Tensor) -> Tensor:
    """Vectors `[n, d + 2]`, made so that the product of two is their squared distance over both contrasts."""
    return torch.cat([x, x.square().sum(dim=1, keepdim=True), torch.ones(len(x), 1)], dim=1) / contrast[:, None]


def _nearest(row: Tensor, distance: Tensor) -> Tensor:
    """Positions of the `NEAREST` smallest distances `[P]` of each row; rows `[P]` are sorted."""
    order = distance.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    rank = torch.arange(len(row)) - torch.searchsorted(row, row)
    return order[rank < NEAREST]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared difference `[P]` of pictures `[P, C, h, w]`, less what a small shift and stretch explain.

    In pictures of fewer cells than `GRID` a shift is no small change, and explains nothing.
    """
    change = (b - a).flatten(1)
    if min(a.shape[2:]) == GRID:
        change = change - _explained(_tangents((a + b) / 2), change)
    return change.square().mean(dim=1).sqrt()


def _tangents(pictures: Tensor) -> Tensor:
    """What a shift by a cell and a stretch by one at either end change along each axis, `[P, 4, C·h·w]`."""
    down, across = torch.gradient(pictures, dim=(2, 3))
    place = torch.linspace(-1, 1, GRID)
    changes = [down, across, down * place[:, None], across * place]
    return torch.stack([change.flatten(1) for change in changes], dim=1)


def _explained(tangents: Tensor, change: Tensor) -> Tensor:
    """The part of the changes `[P, d]` that is a combination of the tangents `[P, 4, d]`, each at most once."""
    gram = tangents @ tangents.mT
    ridge = 1e-3 + 2.5e-3 * gram.diagonal(dim1=1, dim2=2).sum(dim=1)  # flat pictures have no tangents
    weights = torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(4), tangents @ change[:, :, None])
    return (weights.clamp(-1, 1) * tangents).sum(dim=1)
