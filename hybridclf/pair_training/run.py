"""A training in a folder: settings, log and checkpoints, from which it goes on where it was interrupted."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..training.trainer import Trainer, check_finite
from ..utils.progress import progress_bar
from .checkpoint import load_tensors, save_json, save_tensors, writing

__all__ = ["TrainingRun", "steps_in"]

LOG_EVERY = 20
"""Steps from one entry of the log to the next; checkpoints are written with an entry."""

SAVE_EVERY = 60.0
"""Seconds from one checkpoint to the next."""

N_CHECKS = 20
"""Looks at the held-out loss in a training."""

WARM_UP, TIMED_STEPS, TIMED_SECONDS = 3, 5, 2.0
"""Steps before the clock starts, and the fewest steps and seconds that are timed."""


class TrainingRun:
    """What is in the folder OUT/training while, and after, something is trained into OUT.

    `log.json` holds the settings, what else decides the result, the number of steps of each part, its losses and, in
    the end, how good the result is; `PART.safetensors` is the checkpoint of a part.

    Parameters
    ----------
    out : path
        Where the result will be.
    log : dict
        What is known so far: "settings"; "recipe", constants and versions by name; "configs", "n_steps" and "losses" by
        part; and what is added to it.
    """

    def __init__(self, out: Path, log: dict[str, Any]) -> None:
        self.out, self.folder, self.log = out, out / "training", log

    @classmethod
    def start(
        cls,
        out: Path,
        settings: Mapping[str, Any],
        first: Mapping[str, Trainer] = MappingProxyType({}),
        **more: Any,
    ) -> "TrainingRun":
        """A new training in a new or empty folder.

        Parameters
        ----------
        out : path
            The folder.
        settings : mapping
            What decides the training, as plain JSON.
        first : mapping of str to Trainer
            Parts whose start is kept as their first checkpoint, as it does not follow from the settings.
        **more
            Further entries of the log, as plain JSON.

        Raises
        ------
        TrainingError
            If the folder holds something, or nothing can be written there.
        """
        cls.check_free(out)
        is_new = not out.exists()
        run = cls(out, {"settings": dict(settings), "recipe": {}, "configs": {}, "n_steps": {}, "losses": {}} | more)
        try:
            with writing(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
            for part, trainer in first.items():
                save_tensors(run.checkpoint(part), trainer.state_dict())
            run.write()  # last, as it says that there is a training
        except TrainingError:
            with suppress(OSError):  # leave nothing behind
                for part in first:
                    run.checkpoint(part).unlink(missing_ok=True)
                for folder in (run.folder, out)[: 1 + is_new]:
                    folder.rmdir()
            raise
        return run

    @staticmethod
    def check_free(out: Path) -> None:
        """Check that a training can start in that folder.

        Raises
        ------
        TrainingError
            If it holds something.
        """
        if (out / "training" / "log.json").exists() and not (out / "model.json").exists():
            raise TrainingError(f"{out} holds a training that is not finished; resume it, or give another folder")
        if out.exists() and not _is_blank(out):
            raise TrainingError(f"{out} exists and is not empty; give a new or empty folder")

    @classmethod
    def resume(cls, out: Path, settings: Mapping[str, Any]) -> "TrainingRun":
        """The training that is in a folder.

        Parameters
        ----------
        out : path
            Where it was started.
        settings : mapping
            Those that are asked for again, by name; they must be the same.

        Raises
        ------
        TrainingError
            If there is none, if it is finished, or for other settings.
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
        """Check that settings, by name, are those of the training.

        Raises
        ------
        TrainingError
            If not; it lists what differs.
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
        """Check that constants and versions, by name and as plain JSON, are those that the training began with.

        Raises
        ------
        TrainingError
            If not; it lists what differs.
        """
        self._require_same("recipe", self.log["recipe"], recipe)

    def _require_same(self, what: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check what the code decides; another version of it, or of a library, may do otherwise."""
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
        save_json(self.folder / "log.json", self.log)

    def train(
        self,
        part: str,
        trainer: Trainer,
        seconds: float,
        held_out: Callable[[nn.Module], float],
        progress: bool = False,
        loss: Mapping[str, Any] = MappingProxyType({}),
    ) -> nn.Module:
        """Train one part to its end, from its checkpoint if there is one; its averaged network.

        Ctrl-C is obeyed after the step that it falls into, and a checkpoint.

        Parameters
        ----------
        part : str
            Its name.
        trainer : Trainer
            At its start.
        seconds : float
            Time to train for: made into a number of steps when the part first starts, and stored.
        held_out : function
            From the averaged network to its loss on held-out images; for the log alone.
        progress : bool
            Whether to show a progress bar.
        loss : mapping
            Settings of the trainer's loss, as plain JSON; for the log, and so that it is not resumed with others.

        Raises
        ------
        TrainingError
            If the checkpoint can be read no more, or is refused by the disk, or was trained in another way.
        KeyboardInterrupt
            After Ctrl-C.
        """
        config = json.loads(json.dumps(asdict(trainer.config) | dict(loss)))
        self._require_same(part, self.log["configs"].setdefault(part, config), config)
        if part not in self.log["n_steps"]:
            self.log["n_steps"][part] = steps_in(trainer, seconds)
            self.write()
        trainer.n_steps = self.log["n_steps"][part]
        checkpoint = self.checkpoint(part)
        if checkpoint.exists():
            _restore(trainer, checkpoint)
        entries = [entry for entry in self.log["losses"].get(part, []) if entry["step"] <= trainer.step]
        self.log["losses"][part] = entries
        with _interrupts_noted() as noted:
            self._run(part, trainer, held_out, progress, noted)
        if noted.is_set():
            raise KeyboardInterrupt
        return trainer.average

    def checkpoint(self, part: str) -> Path:
        """Where the checkpoint of a part lies."""
        return self.folder / f"{part}.safetensors"

    def _run(
        self,
        part: str,
        trainer: Trainer,
        held_out: Callable[[nn.Module], float],
        progress: bool,
        interrupted: threading.Event,
    ) -> None:
        """Step by step, with a bar, entries in the log and checkpoints; the last ones when it is interrupted."""
        size, saved, since = trainer.config.batch_size, time.monotonic(), time.monotonic()
        count: dict[str, Any] = {"total": trainer.n_steps * size, "initial": trainer.step * size}
        losses: list[Tensor] = []
        with progress_bar(**count, desc=f"train {part}", unit="image", unit_scale=True, show=progress) as bar:
            for loss in trainer.run():
                losses.append(loss)
                bar.update(size)
                done = trainer.step == trainer.n_steps or interrupted.is_set()
                if trainer.step % LOG_EVERY and not done:
                    continue
                entry = _entry(trainer, losses, since)
                check_finite(part, trainer.step, entry["loss"])
                if _is_check(trainer):
                    entry["held_out"] = held_out(trainer.average)
                self.log["losses"][part].append(entry)
                bar.set_postfix(loss=f"{entry['loss']:.4f}")
                if done or time.monotonic() - saved > SAVE_EVERY:
                    self.write()  # first, as entries beyond the checkpoint are dropped again
                    save_tensors(self.checkpoint(part), trainer.state_dict())
                    saved = time.monotonic()
                if done:
                    return
                losses, since = [], time.monotonic()


@contextmanager
def _interrupts_noted() -> Iterator[threading.Event]:
    """Set an event at Ctrl-C instead of breaking off a step half done; a second Ctrl-C does break it off.

    Whoever handles Ctrl-C in a way of their own goes on doing so.
    """
    noted = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return

    def note(*_: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _entry(trainer: Trainer, losses: list[Tensor], since: float) -> dict[str, float]:
    """An entry of the log: of the last steps, their mean loss and how fast they were."""
    loss = float(torch.stack(losses).mean())  # waits for the device
    speed = trainer.config.batch_size * len(losses) / (time.monotonic() - since)
    return {"step": trainer.step, "loss": loss, "images_per_second": round(speed, 1)}


def _is_check(trainer: Trainer) -> bool:
    """Whether the held-out loss is due: evenly over the training, and at its end."""
    every = max(1, trainer.n_steps // N_CHECKS // LOG_EVERY) * LOG_EVERY
    return trainer.step % every == 0 or trainer.step == trainer.n_steps


def _restore(trainer: Trainer, checkpoint: Path) -> None:
    try:
        trainer.load_state_dict(load_tensors(checkpoint))
    except (KeyError, RuntimeError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(
            f"{checkpoint} is that of another training: {error}; start anew in another folder"
        ) from error


def steps_in(trainer: Trainer, seconds: float) -> int:
    """Steps that a trainer takes in so many seconds, at least one, by a short timing that leaves it as it was."""
    start, trainer.n_steps = trainer.state_dict(), 2**62
    steps = trainer.run()
    for _ in range(WARM_UP):
        float(next(steps))
    n, begin = 0, time.perf_counter()
    while n < TIMED_STEPS or time.perf_counter() - begin < TIMED_SECONDS:
        float(next(steps))  # waits for the device
        n += 1
    per_step = (time.perf_counter() - begin) / n
    trainer.load_state_dict(start)
    return max(1, int(seconds / per_step))


def _is_blank(out: Path) -> bool:
    """Whether a folder is empty but for what a training leaves that was killed before its first log."""
    begun = [out / "training"] if (out / "training").is_dir() else []
    return out.is_dir() and [*out.iterdir()] == begun and all(p.suffix == ".part" for d in begun for p in d.iterdir())
