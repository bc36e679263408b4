"""A training loop that goes on where it was interrupted: what a step does depends on its number alone."""

import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridclf.training.optimizer import Optimizer

SAVE_EVERY = 120.0
"""Seconds between checkpoints."""


def fit(
    path: Path,
    model: nn.Module,
    loss_at: Callable[[int], dict[str, Tensor]],
    n_steps: int,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    decay: float = 0.998,
    muon: bool = False,
    recipe: dict[str, Any] | None = None,
) -> nn.Module:
    """Train a model to step `n_steps`; its averaged copy. Losses go to `path`.log, a checkpoint to `path`.pt.

    `loss_at(step)` gives named losses whose sum is minimised. A checkpoint of another `recipe` is refused.
    """
    average = copy.deepcopy(model).requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = Optimizer(model, weight_decay, muon)
    state = {"model": model, "average": average, "optimizer": optimizer}
    checkpoint, log = (path.with_name(path.name + suffix) for suffix in (".pt", ".log"))
    about = {"n_steps": n_steps, "recipe": recipe}
    first = _resume(checkpoint, state, about)
    _forget(log, first)
    saved, bar = time.monotonic(), tqdm(range(first, n_steps), initial=first, total=n_steps, desc=path.name)
    for step in bar:
        losses = loss_at(step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step(learning_rate * _warm_cosine(step, n_steps))
        _follow(average, model, min(decay, (step + 1) / (step + 10)))
        if step % 20 == 0:
            _log(log, step, losses, bar)
        if time.monotonic() - saved > SAVE_EVERY or step + 1 == n_steps:
            _save(checkpoint, state, step + 1, about)
            saved = time.monotonic()
    return average.eval()


def _warm_cosine(step: int, n_steps: int) -> float:
    """Factor on the learning rate: a linear warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / min(200, n_steps / 10)) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def _log(path: Path, step: int, losses: dict[str, Tensor], bar: tqdm) -> None:
    values = {name: round(loss.item(), 5) for name, loss in losses.items()}
    bar.set_postfix(values)
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n")


def _forget(path: Path, first: int) -> None:
    """Drop what the log holds of steps that will be taken again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] < first]
        path.write_text("".join(f"{line}\n" for line in lines))


def _save(path: Path, state: dict, step: int, about: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    states = {name: value.state_dict() for name, value in state.items()}
    torch.save({"step": step, **about, **states}, part)
    os.replace(part, path)


def _resume(path: Path, state: dict, about: dict[str, Any]) -> int:
    """The first step to take, after what is in a checkpoint; its schedule and recipe must be the same."""
    if not path.exists():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if (was := {name: saved.get(name) for name in about}) != about:
        raise SystemExit(f"{path} is of a training with {was}, not {about}; move it, or train as it was")
    for name, value in state.items():
        value.load_state_dict(saved[name])
    return saved["step"]
