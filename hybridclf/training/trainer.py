"""Trainer of networks, step by step, with an exact state to resume from."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .optimizer import Optimizer

__all__ = ["Examples", "Trainer", "TrainerConfig", "check_finite"]

COOLDOWN = 0.4
"""Last share of a training, in which the learning rate falls to zero."""

Loss = Callable[..., Tensor]
"""Function from (network, images `[B, …]`, class numbers `[B]`, generator, weights `[B]` if there are) to a loss."""


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a `Trainer`, independent of its loss.

    Attributes
    ----------
    batch_size : int
        Images per step.
    learning_rate : float
        Peak of the schedule: a linear warm-up, a plateau, and a linear cooldown to zero.
    weight_decay : float
        Weight decay of the optimiser.
    ema_decay : float
        Decay per step of the moving average of the weights, the final result.
    bf16 : bool
        Compute the network in bfloat16 (autocast); weights and losses stay in float32.
    muon : bool
        Use Muon for the inner layers; see `hybridclf.training.optimizer.Optimizer`.
    compiled : bool
        Compile the network (torch.compile), which takes a minute or two and a C++ compiler. All batches then have one
        size, and a pass leaves out the remainder, which differs from pass to pass.
    micro_batch_size : int or None
        Images per forward and backward pass, whose gradients are summed up to a step's, for less memory. None: all.
    """

    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    ema_decay: float = 0.99
    bf16: bool = False
    muon: bool = False
    compiled: bool = False
    micro_batch_size: int | None = None


class Trainer:
    """Trainer of a network, step by step. After any step its state can be saved and resumed exactly.

    Gradients are clipped to a norm of 1. The network must not draw random numbers of its own. On a CPU, the same state
    leads to the same weights, bit for bit; on a GPU, only if its kernels are deterministic.

    Parameters
    ----------
    network : nn.Module
        Network to train in place, on its own device.
    images : Tensor `[n, …]`
        Images in the form the loss takes, on the network's device.
    y : LongTensor `[n]`
        Class numbers, on the same device.
    loss : function
        Function from (network, images, class numbers, generator) to the loss of a batch.
    config : TrainerConfig
        Settings.
    n_steps : int
        Length of the schedule.
    seed : int
        Seed of the batches and of the loss's random numbers.
    weight : Tensor `[n]`, optional
        Weights of the images, a further argument of the loss.
    rates : mapping of str to float
        Factors on the learning rate, by the parameter's name; see `Optimizer`.

    Attributes
    ----------
    average : nn.Module
        Moving average of the network's weights and running statistics.
    step : int
        Steps taken.
    n_steps : int
        Length of the schedule; it may be set before the first step.
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
        rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.network, self.average = network.train(), copy.deepcopy(network).requires_grad_(False).eval()
        self.images, self.y, self.loss, self.config = images, y, loss, config
        self.weight = weight
        self.n_steps, self.step = n_steps, 0
        self.rng = torch.Generator(images.device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.long, device=images.device)
        self._parameters = list(network.parameters())
        # (average, network) by tensor; integers, such as batch norm's count of batches, are copied, not averaged
        tensors = list(zip(self.average.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [both for both in tensors if both[0].is_floating_point()]
        self._copied = [both for both in tensors if not both[0].is_floating_point()]
        self._optimizer = Optimizer(network, config.weight_decay, config.muon, rates)
        self._computed = cast(nn.Module, torch.compile(network)) if config.compiled else network

    @property
    def steps_per_pass(self) -> int:
        """Steps of one pass over the images."""
        n_batches = len(self.images) / self.config.batch_size
        # a smaller last batch would be compiled once more
        return max(1, math.floor(n_batches)) if self.config.compiled else math.ceil(n_batches)

    def cool_down(self) -> None:
        """Begin the cooldown with the next step, unless it has begun; the schedule becomes shorter."""
        self.n_steps = min(self.n_steps, self.step + self.cooldown_steps)

    def put_off_cooldown(self, step: int, most: int) -> None:
        """Put the cooldown off to a later step, unless it has begun; the schedule has `most` steps at most."""
        if self.step <= (1 - COOLDOWN) * self.n_steps:
            self.n_steps = max(self.n_steps, min(most, math.ceil(step / (1 - COOLDOWN))))

    @property
    def cooldown_steps(self) -> int:
        """Steps of a cooldown that begins with the next step."""
        return math.ceil(self.step / (1 - COOLDOWN)) - self.step

    def run(self) -> Iterator[Tensor]:
        """Run until `n_steps` are taken, and yield the loss of each step."""
        while self.step < self.n_steps:
            yield self._advance()

    def _advance(self) -> Tensor:
        """Take one step and return its loss."""
        batch = self._next_batch()
        self._optimizer.zero_grad()
        parts = batch.split(self.config.micro_batch_size or len(batch))
        loss = torch.stack([self._backward(part, len(part) / len(batch)) for part in parts]).sum()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step(self.config.learning_rate * _schedule(self.step, self.n_steps))
        self.step += 1
        # a smaller decay at first: else the average would stay close to the initial weights for long
        self._follow(min(self.config.ema_decay, self.step / (self.step + 9)))
        return loss

    def _backward(self, index: Tensor, share: float) -> Tensor:
        """Add the gradient of a part of a batch, and return its share of the loss."""
        weight = () if self.weight is None else (self.weight[index],)
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss = self.loss(self._computed, self.images[index], self.y[index], self.rng, *weight) * share
        loss.backward()
        return loss.detach()

    def _next_batch(self) -> Tensor:
        """Positions of the next batch; every pass has a random order of its own."""
        number = self.step % self.steps_per_pass
        if number == 0:
            self._order = torch.randperm(len(self.images), generator=self.rng, device=self.rng.device)
        return self._order.split(self.config.batch_size)[number]

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Update the moving average of the weights."""
        torch._foreach_lerp_([ours for ours, _ in self._averaged], [theirs for _, theirs in self._averaged], 1 - decay)
        for ours, theirs in self._copied:
            ours.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """Complete state between steps, as a flat dict of copied tensors."""
        counts = {"step": torch.tensor(self.step), "n_steps": torch.tensor(self.n_steps)}
        tensors = counts | {"rng": self.rng.get_state(), "order": self._order}
        for prefix, module in self._modules():
            tensors |= {prefix + name: value for name, value in module.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in self._optimizer.state_dict().items()}
        return {name: value.detach().clone() for name, value in tensors.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a `state_dict` of a trainer made with the same arguments.

        Raises
        ------
        KeyError, RuntimeError
            If the state belongs to another network.
        """
        self.step, self.n_steps = int(tensors["step"]), int(tensors["n_steps"])
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
    DivergedError
        If the loss is not finite.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the training of the {name} diverged: at step {step} its loss is {loss}; check the images for values that "
            "are not finite, or train with another seed or a lower learning rate"
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _schedule(step: int, n_steps: int) -> float:
    """Factor on the learning rate at a step: it rises over the first steps, stays at 1, and falls over the last ones.

    Unlike a cosine, a plateau does not depend on when the training will end, so that it can be cut short.
    """
    warm_up = max(1, min(100, n_steps // 10))
    return min(1.0, (step + 1) / warm_up, (n_steps - step) / (COOLDOWN * n_steps))


# --- denoisers --------------------------------------------------------------------------------------------------------


class Examples(NamedTuple):
    """Training images of a denoiser, or held-out ones.

    Attributes
    ----------
    x0 : Tensor `[n, *shape]`
        Encoded images.
    y : LongTensor `[n]`
        Class numbers.
    weight : Tensor `[n]` or None
        Weights, 1 on average; None if all count alike.
    """

    x0: Tensor
    y: Tensor
    weight: Tensor | None = None

    def select(self, index: Any) -> "Examples":
        """Select examples by position."""
        return Examples(self.x0[index], self.y[index], None if self.weight is None else self.weight[index])
