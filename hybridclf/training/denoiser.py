"""Training of a denoiser, with early stopping on held-out images."""

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

from ..models.late_conditioned import LateConditioned
from .augmentation import affine_jitter
from .losses import ALL_TIMES, denoising_loss
from .trainer import Examples, Trainer, TrainerConfig, check_finite

__all__ = ["TrainingConfig", "TrainingLog", "train"]

CHECK_EVERY = 5
"""Passes between two checks of the held-out loss."""

FIFTHS, FALL = 5, 0.05
"""Test of convergence: the mean loss of the last fifth of the passes is at most 5 % below the fifth before."""


@dataclass(frozen=True)
class TrainingConfig(TrainerConfig):
    """Settings of `train`: the fields of `TrainerConfig` and these.

    Attributes
    ----------
    max_iter : int
        Most passes over the data.
    wrong_class_weight : float
        Weight of the cross-entropy over the candidates' errors, beside the denoising loss; 0 leaves it out.
    n_iter_no_change : int
        Passes without a better held-out loss after which training stops.
    augment : bool
        Augment images by small rotations, scalings and shifts.
    times : (low, high)
        Range of most of the times; see `denoising_loss`.
    """

    max_iter: int = 200
    wrong_class_weight: float = 1.0
    n_iter_no_change: int = 30
    augment: bool = False
    times: tuple[float, float] = ALL_TIMES


@dataclass
class TrainingLog:
    """Record of a training.

    Attributes
    ----------
    n_iter : int
        Passes over the data behind the final weights.
    loss : list of float
        Mean training loss of each pass.
    held_out : list of float
        Loss on held-out images after every `CHECK_EVERY` passes; empty without such images.
    settled : bool
        True if training stopped early, as the held-out loss no longer fell.
    """

    n_iter: int = 0
    loss: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    settled: bool = False

    @property
    def converged(self) -> bool:
        """True if training stopped early, or the last fifth's loss is not clearly below that of the fifth before."""
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
    """Train a network in place by the moving average of its weights.

    Parameters
    ----------
    network : LateConditioned
        Network to train, on its own device. It ends with the averaged weights, the best on held-out images if given.
    examples : Examples
        Training images.
    config : TrainingConfig
        Settings.
    held_out : Examples, optional
        Images for early stopping; without them training runs to `max_iter`.
    seed : int
        Seed of batches, noise and augmentation.
    bar : tqdm, optional
        Progress bar, moved by one per pass.

    Returns
    -------
    TrainingLog

    Raises
    ------
    TrainingError
        If the loss is not finite.
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
        # checks are of the averaged weights, the ones to be kept
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
    """Run pass after pass over the data, and yield the mean loss of each."""
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
    """Compute the training loss on held-out images."""
    rng = torch.Generator().manual_seed(0)  # the same times and noise every time, so that losses compare
    n = len(held_out.x0)
    # few images are repeated under other noise, to at least 256 terms in all: 100 images twice
    repeated = torch.arange(n).repeat_interleave(max(1, 256 // n))
    total = 0.0
    for index in repeated.split(1024):
        x0, y, weight = held_out.select(index)
        total += float(denoising_loss(network, x0, y, config.wrong_class_weight, rng, config.times, weight)) * len(
            index
        )
    return total / len(repeated)
