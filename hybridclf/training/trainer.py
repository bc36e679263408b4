"""Training step by step, which goes on exactly where it stopped."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .optimizer import Optimizer

__all__ = ["Examples", "Trainer", "TrainerConfig", "check_finite"]

Loss = Callable[..., Tensor]
"""From a network, a batch of images `[B, …]`, their class numbers `[B]`, a source of chance, and the images' weights
`[B]` if they have any, to one number.
"""


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
        Whether Muon takes the inner layers; see `hybridclf.training.optimizer.Optimizer`.
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
