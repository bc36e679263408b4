"""What a denoiser is trained on: the denoising loss, the wrong-class term, and images that are changed a little."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.denoiser import cosine_levels
from ..models.late import LateConditioned

__all__ = ["ALL_TIMES", "denoising_loss"]

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
