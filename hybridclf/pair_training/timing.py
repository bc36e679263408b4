"""Speed of training and of tier 2, by the time of a few steps and rows."""

import time

import torch
from torch import nn

from ..fitting.recording import RECORDED_CLASSES
from ..training.trainer import Trainer
from .training_data import TrainingData

__all__ = ["Pace", "seconds_per_row", "seconds_per_step", "steps_in"]

WARM_UP, TIMED_STEPS, TIMED_SECONDS = 1, 2, 2.0
"""Untimed steps at first, then the fewest timed steps and seconds."""

TIMED_ROWS = 32
"""Rows that tier 2's speed is measured on."""

LATE = 1.1
"""Times the time left that the rest of a training may take before it is late."""


class Pace:
    """Pace of a training, by which it is told whether the time is enough for its steps.

    Parameters
    ----------
    seconds : float
        Time left for steps.
    longest : float
        Time left for steps and checks of the held-out loss, as long as it falls.
    """

    def __init__(self, seconds: float, longest: float = 0.0) -> None:
        self._left, self._most = seconds, longest
        self._spent, self._checked, self._n_steps = 0.0, 0.0, 0
        self._is_first = True

    def is_late(
        self, trainer: Trainer, seconds: float, n_steps: int, checking: float = 0.0, falls: bool = False
    ) -> bool:
        """Count the last steps of a trainer, and tell whether a cooldown that begins now would still end too late.

        The first ones that are counted say nothing of the pace, as they may have compiled the network.

        Parameters
        ----------
        trainer : Trainer
            Trainer.
        seconds : float
            Time of the last steps.
        n_steps : int
            Number of them.
        checking : float
            Time of the check of the held-out loss after them.
        falls : bool
            True if that loss is the lowest yet.
        """
        self._left, self._most = self._left - seconds, self._most - seconds - checking
        if self._is_first:
            self._is_first = False
            return False
        self._spent, self._checked = self._spent + seconds, self._checked + checking
        self._n_steps += n_steps
        n = trainer.cooldown_steps / self._n_steps
        is_late = n * self._spent > LATE * self._left
        return is_late and not (falls and n * (self._spent + self._checked) <= self._most)


def steps_in(trainer: Trainer, seconds: float) -> int:
    """Estimate the steps in so many seconds, at least one, by timing a few."""
    return max(1, int(seconds / seconds_per_step(trainer)))


def seconds_per_step(trainer: Trainer) -> float:
    """Time of one step, by that of a few; the trainer's state is restored."""
    start, trainer.n_steps = trainer.state_dict(), 2**62  # a schedule without an end
    steps = trainer.run()
    for _ in range(WARM_UP):
        float(next(steps))
    n, begin = 0, time.perf_counter()
    while n < TIMED_STEPS or time.perf_counter() - begin < TIMED_SECONDS:
        float(next(steps))  # waits for the device
        n += 1
    seconds = (time.perf_counter() - begin) / n
    trainer.load_state_dict(start)
    return seconds


@torch.inference_mode()
def seconds_per_row(network: nn.Module, data: TrainingData) -> float:
    """Time of tier 2 for one row with all classes, or as many as it is asked for, by that of a few."""
    x0, k = data.encode(data.pixels[:TIMED_ROWS]), min(len(data.classes), RECORDED_CLASSES)
    t = torch.full((len(x0),), 0.2, device=data.device)
    row = torch.arange(len(x0), device=data.device).repeat_interleave(k)
    label = torch.arange(k, device=data.device).repeat(len(x0))
    begin = 0.0
    for _ in range(2):  # the first pass allocates memory
        begin = time.perf_counter()
        float(network(x0, t, row, label).sum())  # waits for the device
    return (time.perf_counter() - begin) / len(x0)
