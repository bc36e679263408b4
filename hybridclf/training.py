"""Training: optimisation that goes on exactly where it stopped, and early stopping for denoisers."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.std import tqdm

from .errors import TrainingError
from .losses import ALL_TIMES, affine_jitter, denoising_loss
from .models.late import LateConditioned
from .optimizing import Optimizer

__all__ = ["Examples", "Trainer", "TrainerConfig", "TrainingConfig", "TrainingLog", "check_finite", "train"]

Loss = Callable[..., Tensor]
"""From a network, a batch of images `[B, …]`, their class numbers `[B]`, a source of chance, and the images' weights
`[B]` if they have any, to one number.
"""

CHECK_EVERY = 5
"""Passes from one look at the held-out loss to the next."""

FIFTHS, FALL = 5, 0.05
"""A loss that falls by more than this share from one fifth of the passes to the next, the last, had not settled."""


@dataclass(frozen=True)
class TrainerConfig:
    """How a network is trained, whatever its loss.

    Attributes
    ----------
    batch_size : int
        Images per step.
    learning_rate : float
        Peak of a schedule that warms up over the first steps and then falls along a cosine.
    weight_decay : float
        AdamW's.
    ema_decay : float
        Decay per step of the moving average of the weights, which is what is kept.
    bf16 : bool
        Whether the network computes in bfloat16 (autocast); weights and losses stay in float32.
    muon : bool
        Whether Muon takes the inner layers; see `hybridclf.optimizing.Optimizer`.
    compiled : bool
        Whether the network is compiled (torch.compile), which takes a minute or two and a C++ compiler; batches are
        then all of one size, and what is left over of a pass comes up in another.
    """

    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    ema_decay: float = 0.99
    bf16: bool = False
    muon: bool = False
    compiled: bool = False


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


class Trainer:
    """Trains a network step by step; it can be stopped after any step, saved, and go on as if nothing had happened.

    Gradients are clipped to a norm of 1. The network may draw no random numbers of its own. On a processor the same
    state leads to the same weights, bit for bit; on a GPU as far as its kernels repeat themselves.

    Parameters
    ----------
    network : nn.Module
        Trained in place, where its parameters are.
    images : Tensor `[n, …]`
        What the loss takes, on the network's device.
    y : LongTensor `[n]`
        Class numbers, on the same device.
    loss : function
        From (network, batch of images, their class numbers, generator) to what is minimised.
    config : TrainerConfig
        How to train.
    n_steps : int
        Length of the schedule.
    seed : int
        Decides batches and whatever the loss draws.
    weight : Tensor `[n]`, optional
        Weights of the images, handed on to the loss.

    Attributes
    ----------
    average : nn.Module
        Moving average of the network, its weights and its running statistics.
    step : int
        Steps taken.
    n_steps : int
        As given; may be set before the first step.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        y: Tensor,
        loss: Loss,
        config: TrainerConfig,
        n_steps: int,
        seed: int,
        weight: Tensor | None = None,
    ) -> None:
        self.network, self.average = network.train(), copy.deepcopy(network).requires_grad_(False).eval()
        self.images, self.y, self.loss, self.config = images, y, loss, config
        self.weight = weight
        self.n_steps, self.step = n_steps, 0
        self.rng = torch.Generator(images.device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.long, device=images.device)
        self._parameters = list(network.parameters())
        pairs = list(zip(self.average.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # counts of batches
        self._optimizer = Optimizer(network, config.weight_decay, config.muon)
        self._computed = cast(nn.Module, torch.compile(network)) if config.compiled else network

    @property
    def steps_per_pass(self) -> int:
        """Steps that it takes to see every image once."""
        n_batches = len(self.images) / self.config.batch_size
        return max(1, math.floor(n_batches)) if self.config.compiled else math.ceil(n_batches)

    def run(self) -> Iterator[Tensor]:
        """Step after step until there are `n_steps`; yields the loss of each."""
        while self.step < self.n_steps:
            yield self._advance()

    def _advance(self) -> Tensor:
        """One step; its loss."""
        batch = self._next_batch()
        weight = () if self.weight is None else (self.weight[batch],)
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss = self.loss(self._computed, self.images[batch], self.y[batch], self.rng, *weight)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step(self.config.learning_rate * _warm_cosine(self.n_steps)(self.step))
        self.step += 1
        self._follow(min(self.config.ema_decay, self.step / (self.step + 9)))  # averages over what there is so far
        return loss.detach()

    def _next_batch(self) -> Tensor:
        """Indices of the next images; every pass has an order of its own."""
        number = self.step % self.steps_per_pass
        if number == 0:
            self._order = torch.randperm(len(self.images), generator=self.rng, device=self.rng.device)
        return self._order.split(self.config.batch_size)[number]

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        torch._foreach_lerp_([ours for ours, _ in self._averaged], [theirs for _, theirs in self._averaged], 1 - decay)
        for ours, theirs in self._copied:
            ours.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes from step to step, as a flat set of tensors; a copy."""
        tensors = {"step": torch.tensor(self.step), "rng": self.rng.get_state(), "order": self._order}
        for prefix, module in self._modules():
            tensors |= {prefix + name: value for name, value in module.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in self._optimizer.state_dict().items()}
        return {name: value.detach().clone() for name, value in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state_dict` gave, of a trainer made with the same arguments.

        Raises
        ------
        KeyError, RuntimeError
            If it is that of another network.
        """
        self.step = int(tensors["step"])
        self.rng.set_state(tensors["rng"].cpu())
        self._order = tensors["order"].to(self.images.device)
        for prefix, module in self._modules():
            module.load_state_dict(_under(prefix, tensors))
        self._optimizer.load_state_dict(_under("optimizer.", tensors))

    def _modules(self) -> tuple[tuple[str, nn.Module], tuple[str, nn.Module]]:
        return ("network.", self.network), ("average.", self.average)


def check_finite(name: str, step: int, loss: float) -> None:
    """Check that a training has not diverged.

    Raises
    ------
    TrainingError
        If its loss is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training of the {name} diverged: at step {step} its loss is {loss}; check the images for values that "
            "are not finite, or train with another seed or a lower learning rate"
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _warm_cosine(n_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate by step: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, min(100, n_steps // 10))
    return lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


# --- denoisers --------------------------------------------------------------------------------------------------------


class Examples(NamedTuple):
    """Images that a denoiser is trained on, or that are held out.

    Attributes
    ----------
    x0 : Tensor `[n, *shape]`
        Encoded images.
    y : LongTensor `[n]`
        Class numbers.
    weight : Tensor `[n]` or None
        Weights, one on average; None if all count alike.
    """

    x0: Tensor
    y: Tensor
    weight: Tensor | None = None

    def select(self, index: Any) -> "Examples":
        """Some of them."""
        return Examples(self.x0[index], self.y[index], None if self.weight is None else self.weight[index])


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
