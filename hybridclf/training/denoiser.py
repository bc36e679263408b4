"""Training a denoiser, with early stopping on held-out images."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm.std import tqdm

from ..models.late import LateConditioned
from .augmentation import affine_jitter
from .losses import ALL_TIMES, denoising_loss
from .trainer import Examples, Trainer, TrainerConfig, check_finite

__all__ = ["TrainingConfig", "TrainingLog", "train"]

CHECK_EVERY = 5
"""Passes from one look at the held-out loss to the next."""

FIFTHS, FALL = 5, 0.05
"""A loss that falls by more than this share from one fifth of the passes to the next, the last, had not settled."""


@dataclass(frozen=True)
class TrainingConfig(TrainerConfig):
    """How `train` trains a denoiser; beside the fields of `TrainerConfig`:

    Attributes
    ----------
    max_iter : int
        Passes over the data, at most.
    wrong_class_weight : float
        Weight of the cross-entropy over the candidates' errors beside the denoising loss (0: denoising alone).
    n_iter_no_change : int
        Passes without a better held-out loss after which training stops.
    augment : bool
        Whether images are changed a little, by small rotations, scalings and shifts.
    times : (low, high)
        Range that most of the times are drawn from; see `denoising_loss`.
    """

    max_iter: int = 200
    wrong_class_weight: float = 1.0
    n_iter_no_change: int = 30
    augment: bool = False
    times: tuple[float, float] = ALL_TIMES


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
    settled : bool
        Whether training ended because the held-out loss no longer fell.
    """

    n_iter: int = 0
    loss: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    settled: bool = False

    @property
    def converged(self) -> bool:
        """Whether the loss had settled: in the last fifth of the passes it is not clearly below the fifth before."""
        losses = self.held_out if len(self.held_out) >= 2 * FIFTHS else self.loss
        fifth = len(losses) // FIFTHS
        if self.settled or not fifth:
            return self.settled
        return float(np.mean(losses[-fifth:])) > (1 - FALL) * float(np.mean(losses[-2 * fifth : -fifth]))


def train(
    network: LateConditioned,
    examples: Examples,
    config: TrainingConfig,
    *,
    held_out: Examples | None = None,
    seed: int = 0,
    bar: tqdm | None = None,
) -> TrainingLog:
    """Train a network in place; it ends with averaged weights, the best on held-out images if there are any.

    Parameters
    ----------
    network : LateConditioned
        Trained where its parameters are.
    examples : Examples
        What to train on.
    config : TrainingConfig
        How to train.
    held_out : Examples, optional
        For early stopping; without them training runs to `max_iter`.
    seed : int
        Decides batches, noise and jitter.
    bar : tqdm, optional
        Progress bar that is moved by one with each pass.
    """
    x0, y, weight = examples
    trainer = Trainer(network, x0, y, partial(_denoiser_loss, config), config, 0, seed, weight)
    trainer.n_steps = config.max_iter * trainer.steps_per_pass
    average = cast(LateConditioned, trainer.average)
    best, best_loss, log = None, math.inf, TrainingLog()
    for loss in _passes(trainer):
        log.loss.append(loss)
        if bar is not None:
            bar.update()
        if held_out is None or len(log.loss) % CHECK_EVERY:
            continue
        log.held_out.append(_held_out_loss(average, held_out, config))
        if log.held_out[-1] < best_loss:
            best, best_loss, log.n_iter = copy.deepcopy(average.state_dict()), log.held_out[-1], len(log.loss)
        elif len(log.loss) - log.n_iter >= config.n_iter_no_change:
            log.settled = True
            break
    log.n_iter = log.n_iter or len(log.loss)
    network.load_state_dict(best or average.state_dict())
    return log


def _denoiser_loss(
    config: TrainingConfig,
    network: LateConditioned,
    x0: Tensor,
    y: Tensor,
    rng: torch.Generator,
    weight: Tensor | None = None,
) -> Tensor:
    images = affine_jitter(x0, rng) if config.augment else x0
    return denoising_loss(network, images, y, config.wrong_class_weight, rng, config.times, weight)


def _passes(trainer: Trainer) -> Iterator[float]:
    """Pass after pass over the data; yields the mean loss of each."""
    losses = []
    for loss in trainer.run():
        losses.append(loss)
        if trainer.step % trainer.steps_per_pass == 0:
            mean = float(torch.stack(losses).mean())
            check_finite("denoiser", trainer.step, mean)
            yield mean
            losses.clear()


@torch.no_grad()
def _held_out_loss(network: LateConditioned, held_out: Examples, config: TrainingConfig) -> float:
    """The training loss on held-out images, each with the same noise every time."""
    rng = torch.Generator().manual_seed(0)
    n = len(held_out.x0)
    repeated = torch.arange(n).repeat_interleave(max(1, 256 // n))
    total = 0.0
    for index in repeated.split(1024):
        x0, y, weight = held_out.select(index)
        total += float(denoising_loss(network, x0, y, config.wrong_class_weight, rng, config.times, weight)) * len(
            index
        )
    return total / len(repeated)
