"""What a denoiser is trained on: the denoising loss, the wrong-class term, and images that are changed a little."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .models.denoiser import cosine_levels
from .models.late import LateConditioned

__all__ = ["ALL_TIMES", "affine_jitter", "denoising_loss", "distort", "shift_and_mirror"]

MAX_CANDIDATES = 10
"""Classes that the wrong-class term compares per image: the right one and random others."""

ALL_TIMES = (0.0, 1.0)


def denoising_loss(
    network: LateConditioned,
    x0: Tensor,
    y: Tensor,
    wrong_class_weight: float,
    rng: torch.Generator,
    times: tuple[float, float] = ALL_TIMES,
    weight: Tensor | None = None,
) -> Tensor:
    """Denoising loss, plus the wrong-class term: raise the error under wrong classes.

    The first is the mean squared error in ε under the right class. The second is Appendix D's idea (arXiv
    2303.16203) as cross-entropy: the candidates' scores are minus half their summed squared errors.

    Parameters
    ----------
    network : LateConditioned
        The network.
    x0 : Tensor `[B, *shape]`
        Encoded images.
    y : LongTensor `[B]`
        Class numbers.
    wrong_class_weight : float
        Weight of the second term; 0 leaves it out.
    rng : torch.Generator
        Source of times, noise and wrong classes; on the CPU or where x0 is.
    times : (low, high)
        Range that nine times in ten are drawn from; every tenth is drawn from all of (0, 1), so that no error is ever
        asked for at a time that was never trained.
    weight : Tensor `[B]`, optional
        Weight of each image, one on average over the training images. Default: all count alike.
    """
    n, n_classes = len(x0), network.config["n_classes"]
    t = _times(n, times, rng).to(x0)
    noise = torch.randn(x0.shape, generator=rng, device=rng.device).to(x0)
    alpha, sigma = (v.view(-1, *(1,) * (x0.ndim - 1)) for v in cosine_levels(t))
    labels = _candidates(y, n_classes, rng) if wrong_class_weight else y[:, None]  # [B, k], the right one first
    row = torch.arange(n, device=x0.device).repeat_interleave(labels.shape[1])
    predicted = network(alpha * x0 + sigma * noise, t, row, labels.flatten())
    squared = (predicted - noise[row]).square().flatten(1)
    errors = squared.sum(1).view(labels.shape)
    weight = torch.ones_like(errors[:, 0]) if weight is None else weight
    loss = (weight * errors[:, 0]).mean() / squared.shape[1]
    if labels.shape[1] > 1:
        right = torch.zeros(n, dtype=torch.long, device=x0.device)
        loss = loss + wrong_class_weight * (weight * F.cross_entropy(-errors / 2, right, reduction="none")).mean()
    return loss


def _times(n: int, times: tuple[float, float], rng: torch.Generator) -> Tensor:
    """Times `[n]`, nine in ten of them from the given range."""
    t = torch.rand(n, generator=rng, device=rng.device)
    low, high = times
    first = max(1, n // 10)
    t[first:] = low + (high - low) * t[first:]
    return t


def _candidates(y: Tensor, n_classes: int, rng: torch.Generator) -> Tensor:
    """The right class and different random others, `[B, min(n_classes, MAX_CANDIDATES)]`."""
    k = min(n_classes, MAX_CANDIDATES)
    order = torch.rand(len(y), n_classes - 1, generator=rng, device=rng.device).argsort(1)
    return torch.cat([y[:, None], (y[:, None] + order[:, : k - 1].to(y.device) + 1) % n_classes], dim=1)


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
