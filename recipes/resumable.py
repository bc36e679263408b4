"""A `Trainer` on examples that are made step by step, with a checkpoint and a log beside it."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hybridclf.pair_training.checkpoint import load_tensors, save_json, save_tensors
from hybridclf.training.trainer import Trainer, TrainerConfig

SAVE_EVERY = 120.0
"""Seconds between checkpoints."""


def fit(
    path: Path,
    model: nn.Module,
    loss_at: Callable[[int], dict[str, Tensor]],
    n_steps: int,
    config: TrainerConfig,
    recipe: dict[str, Any] | None = None,
) -> nn.Module:
    """Train a model to step `n_steps`, from its checkpoint if there is one, and return its averaged copy.

    Parameters
    ----------
    path : Path
        The checkpoint is in `path`.safetensors and `path`.json, the losses are in `path`.log.
    model : nn.Module
        Model to train in place.
    loss_at : function
        Named losses of a step, whose sum is minimised. They must depend on the step's number alone.
    n_steps : int
        Length of the training.
    config : TrainerConfig
        Settings; its batch size plays no part.
    recipe : dict, optional
        Settings of the loss, as plain values.

    Raises
    ------
    SystemExit
        If the checkpoint is of other settings.
    """
    weights, settings, log = (path.with_name(path.name + suffix) for suffix in (".safetensors", ".json", ".log"))
    losses: dict[str, Tensor] = {}

    def loss(*_: Any) -> Tensor:
        losses.update(loss_at(trainer.step))
        return torch.stack(list(losses.values())).sum()

    nothing = torch.zeros(1)
    trainer = Trainer(model, nothing, nothing.long(), loss, config, n_steps, seed=0)
    about = {"n_steps": n_steps, "recipe": recipe, "config": asdict(config)}
    if weights.exists():
        if (was := json.loads(settings.read_text())) != about:
            raise SystemExit(f"{path} is of a training with {was}, not {about}; move it, or train as it was")
        trainer.load_state_dict(load_tensors(weights))
    save_json(settings, about)
    _forget(log, trainer.step)
    saved = time.monotonic()
    for _ in (bar := tqdm(trainer.run(), initial=trainer.step, total=n_steps, desc=path.name)):
        if trainer.step % 20 == 1:
            values = {name: round(value.item(), 5) for name, value in losses.items()}
            bar.set_postfix(values)
            with log.open("a") as file:
                file.write(json.dumps({"step": trainer.step - 1, "time": round(time.time(), 1), **values}) + "\n")
        if time.monotonic() - saved > SAVE_EVERY or trainer.step == n_steps:
            save_tensors(weights, trainer.state_dict())
            saved = time.monotonic()
    return trainer.average


def _forget(log: Path, first: int) -> None:
    """Drop the log's lines of steps that will be taken again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] < first]
        log.write_text("".join(f"{line}\n" for line in lines))
