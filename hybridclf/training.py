"""Training of late-conditioned denoisers: denoising loss, wrong-class term, EMA, early stopping."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from .models.denoiser import cosine_levels
from .models.late import LateConditioned

__all__ = ["TrainingConfig", "TrainingLog", "affine_jitter", "denoising_loss", "train"]

MAX_CANDIDATES = 10
"""Classes that the wrong-class term compares per image: the right one and random others."""

CHECK_EVERY = 5
"""Passes from one look at the held-out loss to the next."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a denoiser is trained.

    Attributes
    ----------
    max_iter : int
        Passes over the data, at most.
    batch_size : int
        Images per step.
    learning_rate : float
        Peak of a schedule that warms up over the first steps and then falls along a cosine.
    weight_decay : float
        AdamW's.
    wrong_class_weight : float
        Weight of the cross-entropy over the candidates' errors beside the denoising loss (0: denoising alone).
    ema_decay : float
        Decay per step of the moving average of the weights, which is what is kept.
    n_iter_no_change : int
        Passes without a better held-out loss after which training stops.
    augment : bool
        Whether images are jittered by small rotations, scalings and shifts.
    """

    max_iter: int = 200
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    wrong_class_weight: float = 1.0
    ema_decay: float = 0.99
    n_iter_no_change: int = 30
    augment: bool = False


@dataclass
class TrainingLog:
    """What training went through.

    Attributes
    ----------
    n_iter : int
        Passes over the data behind the weights that were kept.
    loss : list of float
        Mean training loss of each pass.
    held_out : list of float
        Loss on held-out images after every `CHECK_EVERY` passes; empty without them.
    """

    n_iter: int = 0
    loss: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


def train(
    network: LateConditioned,
    x0: Tensor,
    y: Tensor,
    config: TrainingConfig,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TrainingLog:
    """Train a network in place; it ends with averaged weights, the best on held-out images if there are any.

    Parameters
    ----------
    network : LateConditioned
        Trained where its parameters are.
    x0 : Tensor `[n, *shape]`
        Encoded images.
    y : LongTensor `[n]`
        Class numbers.
    config : TrainingConfig
        How to train.
    held_out : (x0, y), optional
        Encoded images and class numbers for early stopping; without them training runs to `max_iter`.
    seed : int
        Decides batches, noise and jitter.
    progress : bool
        Whether to show a progress bar.
    """
    average, log = copy.deepcopy(network), TrainingLog()
    best, best_loss = None, math.inf
    passes = _passes(network, average, x0, y, config, torch.Generator().manual_seed(seed))
    for loss in tqdm(
        passes, total=config.max_iter, desc="train denoiser", unit="pass", leave=None, disable=not progress
    ):
        log.loss.append(loss)
        if held_out is None or len(log.loss) % CHECK_EVERY:
            continue
        log.held_out.append(_held_out_loss(average, *held_out, config))
        if log.held_out[-1] < best_loss:
            best, best_loss, log.n_iter = copy.deepcopy(average.state_dict()), log.held_out[-1], len(log.loss)
        elif len(log.loss) - log.n_iter >= config.n_iter_no_change:
            break
    log.n_iter = log.n_iter or len(log.loss)
    network.load_state_dict(best or average.state_dict())
    return log


def _passes(
    network: LateConditioned,
    average: LateConditioned,
    x0: Tensor,
    y: Tensor,
    config: TrainingConfig,
    rng: torch.Generator,
) -> Iterator[float]:
    """Pass after pass over the data; yields the mean loss of each."""
    parameters, averaged = list(network.parameters()), list(average.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    per_pass = math.ceil(len(x0) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(config.max_iter * per_pass))
    step = 0
    for _ in range(config.max_iter):
        losses = []
        for batch in torch.randperm(len(x0), generator=rng).split(config.batch_size):
            images = affine_jitter(x0[batch], rng) if config.augment else x0[batch]
            loss = denoising_loss(network, images, y[batch], config.wrong_class_weight, rng)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            decay = min(config.ema_decay, step / (step + 9))  # averages over what there is so far
            torch._foreach_lerp_([p.data for p in averaged], [p.data for p in parameters], 1 - decay)
            losses.append(loss.detach())
        yield float(torch.stack(losses).mean())


def _warm_cosine(n_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate by step: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, min(100, n_steps // 10))
    return lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def denoising_loss(
    network: LateConditioned, x0: Tensor, y: Tensor, wrong_class_weight: float, rng: torch.Generator
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
        Source of times, noise and wrong classes; on the CPU.
    """
    n, n_classes = len(x0), network.config["n_classes"]
    t = torch.rand(n, generator=rng).to(x0)
    noise = torch.randn(x0.shape, generator=rng).to(x0)
    alpha, sigma = (v.view(-1, *(1,) * (x0.ndim - 1)) for v in cosine_levels(t))
    labels = _candidates(y, n_classes, rng) if wrong_class_weight else y[:, None]  # [B, k], the right one first
    row = torch.arange(n, device=x0.device).repeat_interleave(labels.shape[1])
    predicted = network(alpha * x0 + sigma * noise, t, row, labels.flatten())
    squared = (predicted - noise[row]).square().flatten(1)
    errors = squared.sum(1).view(labels.shape)
    loss = errors[:, 0].mean() / squared.shape[1]
    if labels.shape[1] > 1:
        right = torch.zeros(n, dtype=torch.long, device=x0.device)
        loss = loss + wrong_class_weight * F.cross_entropy(-errors / 2, right)
    return loss


def _candidates(y: Tensor, n_classes: int, rng: torch.Generator) -> Tensor:
    """The right class and different random others, `[B, min(n_classes, MAX_CANDIDATES)]`."""
    k = min(n_classes, MAX_CANDIDATES)
    offsets = torch.rand(len(y), n_classes - 1, generator=rng).argsort(1)[:, : k - 1] + 1
    return torch.cat([y[:, None], (y[:, None] + offsets.to(y.device)) % n_classes], dim=1)


@torch.no_grad()
def _held_out_loss(network: LateConditioned, x0: Tensor, y: Tensor, config: TrainingConfig) -> float:
    """The training loss on held-out images, each with the same noise every time."""
    rng = torch.Generator().manual_seed(0)
    repeat = max(1, 256 // len(x0))
    x0, y = x0.repeat_interleave(repeat, dim=0), y.repeat_interleave(repeat)
    chunks = zip(x0.split(1024), y.split(1024), strict=True)
    losses = [denoising_loss(network, x, c, config.wrong_class_weight, rng) * len(x) for x, c in chunks]
    return float(sum(losses)) / len(x0)


def affine_jitter(x0: Tensor, rng: torch.Generator) -> Tensor:
    """Images `[n, C, H, W]`, each rotated by up to 0.15 rad, scaled by up to 7.5 % and shifted by up to 1/16."""
    n = len(x0)
    angle, zoom, shift_x, shift_y = (torch.rand(4, n, generator=rng) * 2 - 1).unbind()
    angle, zoom = 0.15 * angle, 1 + 0.075 * zoom
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack([cos, -sin, 0.125 * shift_x, sin, cos, 0.125 * shift_y], dim=1).view(n, 2, 3).to(x0)
    grid = F.affine_grid(matrix, list(x0.shape), align_corners=False)
    return F.grid_sample(x0, grid, padding_mode="border", align_corners=False)
