"""Training run in a folder: settings, log and checkpoints to resume from."""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..training.trainer import Trainer, check_finite
from ..utils.progress import progress_bar
from .best_weights import BestWeights
from .checkpoint import load_tensors, save_json, save_tensors, writing
from .interrupts import interrupts_noted
from .out_folder import check_free
from .time_budget import TimeBudget
from .timing import Pace, steps_in

__all__ = ["N_CHECKS", "TrainingRun"]

LOG_EVERY = 20
"""Steps between two entries of the log; a checkpoint is written with an entry."""

SAVE_EVERY, SAVE_SHARE = 60.0, 0.05
"""Fewest seconds between two checkpoints, and most of a training's time that writing them takes."""

N_CHECKS = 20
"""Checks of the held-out loss per training of a new network."""


class TrainingRun:
    """Training run with its folder OUT/training, which stays beside the result in OUT.

    `log.json` holds the settings, the constants and versions that decide the result, the steps and losses of each
    network and, in the end, the measured quality. `NAME.safetensors` is the checkpoint of a network.

    Parameters
    ----------
    out : path
        Folder of the result.
    log : dict
        The log so far: "settings"; "recipe", constants and versions by name; "configs", "n_steps" and "losses" by the
        network's name; and further entries.

    Attributes
    ----------
    budget : TimeBudget or None
        Time whose seconds are counted whenever the log, which holds them, is written.
    """

    def __init__(self, out: Path, log: dict[str, Any]) -> None:
        self.out, self.folder, self.log = out, out / "training", log
        self.budget: TimeBudget | None = None

    @classmethod
    def start(
        cls,
        out: Path,
        settings: Mapping[str, Any],
        first: Mapping[str, Trainer] = MappingProxyType({}),
        **more: Any,
    ) -> "TrainingRun":
        """Start a training in a new or empty folder.

        Parameters
        ----------
        out : path
            Folder of the result.
        settings : mapping
            Settings that decide the training, as plain JSON.
        first : mapping of str to Trainer
            Trainers, by name, whose initial state is saved as a checkpoint, as it does not follow from the settings.
        **more
            Further entries of the log, as plain JSON.

        Raises
        ------
        TrainingError
            If the folder holds something, or nothing can be written there.
        """
        check_free(out)
        is_new = not out.exists()
        run = cls(out, {"settings": dict(settings), "recipe": {}, "configs": {}, "n_steps": {}, "losses": {}} | more)
        try:
            with writing(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
            for name, trainer in first.items():
                save_tensors(run.checkpoint(name), trainer.state_dict())
            run.write()  # last: a folder with a log counts as a training
        except TrainingError:
            with suppress(OSError):  # remove all that was begun
                for name in first:
                    run.checkpoint(name).unlink(missing_ok=True)
                for folder in (run.folder, out)[: 1 + is_new]:
                    folder.rmdir()
            raise
        return run

    @classmethod
    def resume(cls, out: Path, settings: Mapping[str, Any]) -> "TrainingRun":
        """Resume the training in a folder.

        Parameters
        ----------
        out : path
            Folder in which it was started.
        settings : mapping
            Settings given again, by name; they must equal the training's own.

        Raises
        ------
        TrainingError
            If there is no training, it is finished, or its settings differ.
        """
        if (out / "model.json").exists():
            raise TrainingError(f"the training in {out} is finished; to train more, start anew in another folder")
        try:
            log = json.loads((out / "training" / "log.json").read_text(encoding="utf-8"))
            run = cls(out, {"recipe": {}} | {name: log[name] for name in ("settings", "configs", "n_steps", "losses")})
            run.log |= log
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{out} holds no training to resume; start one there without resuming") from error
        run.require(settings)
        return run

    def require(self, settings: Mapping[str, Any]) -> None:
        """Check that some settings, by name, equal the training's own.

        Raises
        ------
        TrainingError
            If some differ; the message lists them.
        """
        stored = self.log["settings"]
        other = [
            f"{name} is {stored.get(name)!r}, not {value!r}"
            for name, value in settings.items()
            if stored.get(name) != value
        ]
        if other:
            raise TrainingError(
                f"the training in {self.out} has other settings: {'; '.join(other)}; resume it with its own (leave out "
                "what you do not want to change), or start anew in another folder"
            )

    def require_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Check that constants and versions, by name and as plain JSON, equal those at the training's start.

        Raises
        ------
        TrainingError
            If some differ; the message lists them.
        """
        self._require_same("recipe", self.log["recipe"], recipe)

    def _require_same(self, what: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check that values which the code or a library decides are unchanged."""
        names = dict.fromkeys([*stored, *now])
        other = [
            f"{name} was {stored.get(name)!r}, is {now.get(name)!r}"
            for name in names
            if stored.get(name) != now.get(name)
        ]
        if other:
            raise TrainingError(
                f"the training in {self.out} was started by another version of hybridclf or of its libraries, which "
                f"trains differently ({what}): {'; '.join(other)}; resume it with that version, or start anew in "
                "another folder"
            )

    def write(self) -> None:
        """Write the log."""
        if self.budget is not None:
            self.budget.count()
        save_json(self.folder / "log.json", self.log)

    def train(
        self,
        name: str,
        trainer: Trainer,
        seconds: float,
        held_out: Callable[[nn.Module], float],
        progress: bool = False,
        loss: Mapping[str, Any] = MappingProxyType({}),
        patience: float | None = None,
        n_checks: int = N_CHECKS,
        most_steps: int | None = None,
        longest: float = 0.0,
    ) -> nn.Module:
        """Train one network to its end, from its checkpoint if there is one.

        Ctrl-C takes effect after the current step, once a checkpoint is written.

        Parameters
        ----------
        name : str
            Name of the network.
        trainer : Trainer
            Trainer at its start.
        seconds : float
            Time left for steps. At the first start it becomes a number of steps, which is stored. With a `budget` there
            will be fewer if they take longer than planned.
        held_out : function
            From the averaged network to its loss on held-out images; for the log alone without `patience`.
        progress : bool
            Show a progress bar.
        loss : mapping
            Settings of the trainer's loss, as plain JSON. They are logged, and must be the same when resumed.
        patience : float, optional
            Checks without a lower held-out loss after which the cooldown begins, which makes the training shorter;
            math.inf for none. Default: none, and the last weights are kept.
        n_checks : int
            Checks of the held-out loss in the time left.
        most_steps : int, optional
            Most steps, however long they take.
        longest : float
            Most seconds for steps and checks, if more than `seconds`, while each check of the held-out loss is the
            lowest yet. It needs `patience`.

        Returns
        -------
        nn.Module
            The averaged network; with `patience`, of the lowest held-out loss, which may be that before training.

        Raises
        ------
        TrainingError
            If the checkpoint cannot be read or written, the training's code or settings differ, or the loss is not
            finite.
        KeyboardInterrupt
            After Ctrl-C.
        """
        pace, config = Pace(seconds, longest), json.loads(json.dumps(asdict(trainer.config) | dict(loss)))
        # the first run stores the config, a resumed one must have the same
        self._require_same(name, self.log["configs"].setdefault(name, config), config)
        # steps, not seconds: an interrupted training must end where one without interruption does
        if name not in self.log["n_steps"]:
            planned, most = steps_in(trainer, seconds), most_steps or sys.maxsize
            self.log["n_steps"][name] = min(planned, most)
            if 0 < seconds < longest:
                self.log.setdefault("most_steps", {})[name] = min(int(longest / seconds * planned), most)
            self.write()
        checkpoint = self.checkpoint(name)
        if checkpoint.exists():
            _restore(trainer, checkpoint)
        if not trainer.step:  # a checkpoint has the length of its own, which may be cut short
            trainer.n_steps = self.log["n_steps"][name]
        before = self.log.setdefault("before", {})
        if patience is not None and name not in before:
            save_tensors(self.best(name), trainer.average.state_dict())
            before[name] = held_out(trainer.average)
            self.write()
        # steps after the checkpoint are taken again, and log their entries again
        entries = [entry for entry in self.log["losses"].get(name, []) if entry["step"] <= trainer.step]
        self.log["losses"][name] = entries
        best, every = None, _check_interval(self.log["n_steps"][name], n_checks)
        if patience is not None:
            losses = [self.log["before"][name], *(entry["held_out"] for entry in entries if "held_out" in entry)]
            best = BestWeights.after(self.best(name), patience, losses)
        with interrupts_noted() as noted:
            self._run(name, trainer, held_out, progress, noted, best, every, pace)
        # the checkpoint is written by now
        if noted.is_set():
            raise KeyboardInterrupt
        self.log["n_steps"][name] = trainer.step
        if best is not None:
            trainer.average.load_state_dict(load_tensors(best.path))
        return trainer.average

    def checkpoint(self, name: str) -> Path:
        """Path of a network's checkpoint."""
        return self.folder / f"{name}.safetensors"

    def best(self, name: str) -> Path:
        """Path of a network's weights with the lowest held-out loss."""
        return self.folder / f"{name}-best.safetensors"

    def _run(
        self,
        name: str,
        trainer: Trainer,
        held_out: Callable[[nn.Module], float],
        progress: bool,
        interrupted: threading.Event,
        best: BestWeights | None,
        check_every: int,
        pace: Pace,
    ) -> None:
        """Run the steps with a progress bar, log entries and checkpoints, to an end or to an interruption."""
        size, saved, since, every = trainer.config.batch_size, time.monotonic(), time.monotonic(), SAVE_EVERY
        count: dict[str, Any] = {"total": trainer.n_steps * size, "initial": trainer.step * size}
        losses: list[Tensor] = []
        with progress_bar(**count, desc=f"train {name}", unit="image", unit_scale=True, show=progress) as bar:
            for loss in trainer.run():
                losses.append(loss)
                bar.update(size)
                done = trainer.step == trainer.n_steps or interrupted.is_set()
                if trainer.step % LOG_EVERY and not done:
                    continue
                mean = float(torch.stack(losses).mean())  # waits for the device, so that the time includes all steps
                spent = time.monotonic() - since
                entry = {"step": trainer.step, "loss": mean, "images_per_second": round(size * len(losses) / spent, 1)}
                check_finite(name, trainer.step, entry["loss"])
                if trainer.step % check_every == 0 or trainer.step == trainer.n_steps:
                    entry["held_out"] = held_out(trainer.average)
                    if best is not None:
                        best.check(entry["held_out"], trainer.average)
                        self._set_cooldown(name, trainer, best, check_every)
                checking, falls = time.monotonic() - since - spent, best is not None and best.is_latest
                if self.budget is not None and pace.is_late(trainer, spent, len(losses), checking, falls):
                    self._hurry(name, trainer)
                bar.total = trainer.n_steps * size
                self.log["losses"][name].append(entry)
                bar.set_postfix(loss=f"{entry['loss']:.4f}")
                if done or time.monotonic() - saved > every:
                    begin = time.monotonic()
                    self.write()  # before the checkpoint: entries beyond it are dropped, but missing ones would stay so
                    save_tensors(self.checkpoint(name), trainer.state_dict())
                    saved = time.monotonic()
                    every = max(SAVE_EVERY, (saved - begin) / SAVE_SHARE)
                if done:
                    return
                losses, since = [], time.monotonic()

    def _set_cooldown(self, name: str, trainer: Trainer, best: BestWeights, check_every: int) -> None:
        """Begin a network's cooldown if its loss is settled; put it off to the next check if the loss still falls."""
        if best.is_settled:
            trainer.cool_down()
        elif best.is_latest:
            most = self.log.get("most_steps", {}).get(name, trainer.n_steps)
            trainer.put_off_cooldown(trainer.step + check_every, most)

    def _hurry(self, name: str, trainer: Trainer) -> None:
        """Begin a network's cooldown, and log how many steps were planned, if it now has fewer."""
        before, planned = trainer.n_steps, self.log["n_steps"][name]
        trainer.cool_down()
        if trainer.n_steps < min(before, planned):
            self.log.setdefault("late", {})[name] = planned


def _check_interval(n_steps: int, n_checks: int) -> int:
    """Steps between two checks of the held-out loss, a multiple of `LOG_EVERY`, as they come with log entries only."""
    return max(1, n_steps // n_checks // LOG_EVERY) * LOG_EVERY


def _restore(trainer: Trainer, checkpoint: Path) -> None:
    """Load a checkpoint into a trainer."""
    try:
        trainer.load_state_dict(load_tensors(checkpoint))
    except (KeyError, RuntimeError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(
            f"{checkpoint} is that of another training: {error}; start anew in another folder"
        ) from error
