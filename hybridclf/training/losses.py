"""Training loss of a denoiser: the denoising loss and the wrong-class term."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.denoiser import cosine_levels
from ..models.late_conditioned import LateConditioned

__all__ = ["ALL_TIMES", "denoising_loss"]

MAX_CANDIDATES = 10
"""Most classes per image in the wrong-class term: the right one and random others."""

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
    """Compute the denoising loss plus the wrong-class term, which raises the error under wrong classes.

    The first is the mean squared error in ε under the right class. The second is the cross-entropy of scores that are
    minus half the candidates' summed squared errors.

    Parameters
    ----------
    network : LateConditioned
        Network to train.
    x0 : Tensor `[B, *shape]`
        Encoded images.
    y : LongTensor `[B]`
        Class numbers.
    wrong_class_weight : float
        Weight of the second term; 0 leaves it out.
    rng : torch.Generator
        Source of times, noise and wrong classes, on the CPU or on x0's device.
    times : (low, high)
        Range of nine times in ten. Every tenth is drawn from all of (0, 1), so that every time gets some training.
    weight : Tensor `[B]`, optional
        Weight of each image, 1 on average over the training images. Default: all count alike.

    Returns
    -------
    Tensor `[]`

    References
    ----------
    Appendix D of arXiv 2303.16203 has the idea of the wrong-class term.
    """
    n, n_classes = len(x0), network.config["n_classes"]
    t = _times(n, times, rng).to(x0)
    noise = torch.randn(x0.shape, generator=rng, device=rng.device).to(x0)
    alpha, sigma = (v.view(-1, *(1,) * (x0.ndim - 1)) for v in cosine_levels(t))
    labels = _candidates(y, n_classes, rng) if wrong_class_weight else y[:, None]  # [B, k], the right one first
    # one trunk pass per image serves its k classes: with k = 2, rows are 0, 0, 1, 1, …
    row = torch.arange(n, device=x0.device).repeat_interleave(labels.shape[1])
    predicted = network(alpha * x0 + sigma * noise, t, row, labels.flatten())
    squared = (predicted - noise[row]).square().flatten(1)  # [B·k, d]
    errors = squared.sum(1).view(labels.shape)  # [B, k]
    weight = torch.ones_like(errors[:, 0]) if weight is None else weight
    loss = (weight * errors[:, 0]).mean() / squared.shape[1]
    if labels.shape[1] > 1:
        right = torch.zeros(n, dtype=torch.long, device=x0.device)
        loss = loss + wrong_class_weight * (weight * F.cross_entropy(-errors / 2, right, reduction="none")).mean()
    return loss


def _times(n: int, times: tuple[float, float], rng: torch.Generator) -> Tensor:
    """Draw times `[n]`, nine in ten from the given range and the others from (0, 1)."""
    t = torch.rand(n, generator=rng, device=rng.device)
    low, high = times
    first = max(1, n // 10)
    t[first:] = low + (high - low) * t[first:]
    return t


def _candidates(y: Tensor, n_classes: int, rng: torch.Generator) -> Tensor:
    """Draw candidates `[B, min(n_classes, MAX_CANDIDATES)]`: the right class first, then distinct random others."""
    k = min(n_classes, MAX_CANDIDATES)
    # others are the right class plus distinct offsets 1 … n_classes - 1, modulo n_classes: never the right one again
    order = torch.rand(len(y), n_classes - 1, generator=rng, device=rng.device).argsort(1)
    return torch.cat([y[:, None], (y[:, None] + order[:, : k - 1].to(y.device) + 1) % n_classes], dim=1)
