"""Random changes of training images: shifts, mirroring, rotation, scaling and blanked squares."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["affine_jitter", "distort", "shift_and_mirror"]


def affine_jitter(x0: Tensor, rng: torch.Generator) -> Tensor:
    """Images `[n, C, H, W]`, each rotated by up to 0.15 rad, scaled by up to 7.5 % and shifted by up to 1/16."""
    n = len(x0)
    angle, zoom, shift_x, shift_y = (torch.rand(4, n, generator=rng, device=rng.device) * 2 - 1).unbind()
    angle, zoom = 0.15 * angle, 1 + 0.075 * zoom
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack([cos, -sin, 0.125 * shift_x, sin, cos, 0.125 * shift_y], dim=1).view(n, 2, 3).to(x0)
    grid = F.affine_grid(matrix.double(), list(x0.shape), align_corners=False).to(x0)  # autocast would round floats
    return F.grid_sample(x0, grid, padding_mode="border", align_corners=False)


def distort(x0: Tensor, rng: torch.Generator) -> Tensor:
    """Standardised images `[n, C, H, W]`: half of them jittered, and half with a square of a third of a side blanked.

    The square is set to zero, the mean (cutout, arXiv 1708.04552).
    """
    n, _, height, width = x0.shape
    jittered, blanked = (torch.rand(2, n, 1, 1, 1, generator=rng, device=rng.device) < 0.5).to(x0.device)
    out = torch.where(jittered, affine_jitter(x0, rng), x0)
    rows, columns = _stretch(n, height, rng).to(x0.device), _stretch(n, width, rng).to(x0.device)
    square = (rows[:, :, None] & columns[:, None, :])[:, None]  # [n, 1, H, W]
    return out.masked_fill(square & blanked, 0.0)


def _stretch(n: int, side: int, rng: torch.Generator) -> Tensor:
    """A random third of the `side` pixels along an axis, or less of it at a border, bool `[n, side]`."""
    middle = torch.rand(n, 1, generator=rng, device=rng.device) * side
    return (torch.arange(side, device=rng.device) + 0.5 - middle).abs() < side / 6


def shift_and_mirror(pixels: Tensor, rng: torch.Generator, mirror: bool = True) -> Tensor:
    """Images `[n, H, W, C]`, each shifted by up to an eighth of its side, and half of them mirrored.

    Whole pixels are moved, so nothing is blurred; those that a shift would leave empty repeat the border.

    Parameters
    ----------
    pixels : Tensor `[n, H, W, C]`
        Images of any type.
    rng : torch.Generator
        On the device of the images.
    mirror : bool
        Whether to mirror at all.
    """
    n, height, width, _ = pixels.shape
    rows = _shifted(n, height, rng)
    columns = _shifted(n, width, rng)
    flips = torch.rand(n, 1, generator=rng, device=rng.device) < 0.5
    if mirror:
        columns = torch.where(flips, width - 1 - columns, columns)
    image = torch.arange(n, device=pixels.device)[:, None, None]
    return pixels[image, rows[:, :, None], columns[:, None, :]]


def _shifted(n: int, side: int, rng: torch.Generator) -> Tensor:
    """Where each of the `side` pixels along an axis comes from, `[n, side]`."""
    reach = side // 8
    shift = torch.randint(-reach, reach + 1, (n, 1), generator=rng, device=rng.device)
    return (torch.arange(side, device=rng.device) + shift).clamp(0, side - 1)
