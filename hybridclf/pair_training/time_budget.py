"""Time of a training: what was asked for, what is spent, and how the rest is shared out."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import TrainingError
from ..fitting import drift
from ..fitting.recording import RECORDED_TRIALS
from ..fitting.worth import FEWEST

__all__ = ["FINISHING_SHARE", "MIN_STEPS", "HeldOutCost", "HeldOutUse", "TimeBudget", "TimePlan"]

MIN_STEPS = 200
"""Fewest steps of a network that are worth fitting a fusion to."""


FINISHING_SHARE = 0.25
"""Share of the time for fusion and measurement that more held-out images and trials may not exceed."""

MIN_FUSION = 30
"""Fewest images that the fusion is fitted on, if there are so many; of more classes than these, one of each."""

MIN_TRIALS, MOST_TRIALS = 4, 32
"""Fewest and most trials of the measurement of tier 2 alone."""

RACE_TRIALS = 4
"""Most trials of an image with which a pair is saved."""

FITTED_ANSWERS, MEASURED_ANSWERS = 2, 2
"""Answers of tier 1 to an image of the fusion, as it is and to an unusual copy, and to a measured one, by itself and in
the hybrid.
"""


class TimeBudget:
    """Time that was asked for, and the seconds spent by part.

    Parameters
    ----------
    minutes : float
        Time for everything.
    spent : dict of str to float
        Seconds by part, of earlier runs of a resumed training; changed in place.
    """

    def __init__(self, minutes: float, spent: dict[str, float]) -> None:
        self.minutes, self.spent = minutes, spent
        self._part, self._since = "", 0.0  # of the block under way; "" for none

    @contextmanager
    def spending(self, part: str) -> Iterator[None]:
        """Count the seconds of a `with` block."""
        self._part, self._since = part, time.monotonic()
        try:
            yield
        finally:
            self.count()
            self._part = ""

    def count(self) -> None:
        """Count the seconds of the `with` block under way that were not counted yet."""
        if self._part:
            now = time.monotonic()
            self.spent[self._part] = self.spent.get(self._part, 0.0) + now - self._since
            self._since = now

    @property
    def left(self) -> float:
        """Seconds left, below 0 if more are spent."""
        return 60 * self.minutes - sum(self.spent.values())


class HeldOutCost(NamedTuple):
    """Seconds of fusion and measurement.

    Attributes
    ----------
    row : float
        A row of tier 2.
    answer : float
        An answer of tier 1 to an image, or to a corrupted copy of it.
    n_tempered : int
        Images that the temperature of a tier 1 that answers alone is fitted on: all that are there for the fusion.
    """

    row: float
    answer: float
    n_tempered: int = 0

    @property
    def tempering(self) -> float:
        """The answers for the temperature."""
        return self.n_tempered * self.answer

    @property
    def copies(self) -> float:
        """The answers to corrupted copies of an image."""
        return len(drift.CORRUPTIONS) * self.answer

    @property
    def fitted(self) -> float:
        """An image that the fusion is fitted on, without its corrupted copies."""
        return RECORDED_TRIALS * self.row + FITTED_ANSWERS * self.answer

    def measured(self, trials: int) -> float:
        """An image that the result is measured on, with so many trials of tier 2 alone."""
        return (trials + RACE_TRIALS) * self.row + MEASURED_ANSWERS * self.answer


@dataclass(frozen=True)
class HeldOutUse:
    """Use of the held-out images.

    Attributes
    ----------
    n_fusion, n_measured : int
        Images to fit the fusion on, and to measure the result on.
    trials : int
        Trials of tier 2 alone.
    """

    n_fusion: int
    n_measured: int
    trials: int

    @classmethod
    def within(cls, seconds: float, cost: HeldOutCost, n_fusion: int, n_measured: int, n_classes: int) -> "HeldOutUse":
        """Choose as many images and trials as fit into a time, at least the fewest that say something.

        Parameters
        ----------
        seconds : float
            Time, two thirds of it for the fusion beside the temperature.
        cost : HeldOutCost
            Seconds per row and answer.
        n_fusion, n_measured : int
            Images there are.
        n_classes : int
            Number of classes.
        """
        seconds -= cost.tempering
        most = min(seconds * 2 / 3, seconds - n_measured * cost.measured(MIN_TRIALS))
        # only some have corrupted copies
        affordable = max(most / (cost.fitted + cost.copies), (most - drift.MOST * cost.copies) / cost.fitted)
        trials = (seconds / 3 / max(1, n_measured) - cost.measured(0)) / cost.row
        fewest = cls.fewest(n_fusion, n_measured, n_classes)
        n = min(n_fusion, max(fewest.n_fusion, int(affordable)))
        return cls(n, n_measured, min(MOST_TRIALS, max(fewest.trials, int(trials))))

    @classmethod
    def fewest(cls, n_fusion: int, n_measured: int, n_classes: int) -> "HeldOutUse":
        """Choose the fewest images and trials that say something, of the images there are."""
        return cls(min(n_fusion, max(MIN_FUSION, n_classes)), n_measured, MIN_TRIALS)

    def seconds(self, cost: HeldOutCost) -> float:
        """Time that this takes."""
        copies = min(self.n_fusion, drift.MOST) * cost.copies
        measured = self.n_measured * cost.measured(self.trials)
        return self.n_fusion * cost.fitted + copies + cost.tempering + measured


@dataclass(frozen=True)
class TimePlan:
    """Shares of a training's time in seconds, estimated before the first step.

    Attributes
    ----------
    minutes : float
        Time that was asked for.
    reading : float
        Spent on reading images and networks, and on choosing tier 1.
    tier_1, tier_2 : float
        Training of the tiers; tier 2's may be negative, if there is no time for it.
    longest : float
        Training of tier 1 as long as its held-out loss falls.
    finishing : float
        Fusion and measurement.
    seconds_per_step : float
        One step of tier 2.
    seconds_per_answer : float
        One answer of tier 1.
    shortest : float
        Shortest worthwhile training of tier 1.
    least : float
        Shortest worthwhile training of tier 2 beside tier 1's, which may be longer than its shortest.
    usage : HeldOutUse
        Use of the held-out images.
    """

    minutes: float
    reading: float
    tier_1: float
    tier_2: float
    longest: float
    finishing: float
    seconds_per_step: float
    seconds_per_answer: float
    shortest: float
    least: float
    usage: HeldOutUse

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "TimePlan":
        """The plan that `dataclasses.asdict` was made of."""
        return cls(**{**saved, "usage": HeldOutUse(**saved["usage"])})

    @property
    def n_steps(self) -> int:
        """Steps of tier 2."""
        return int(max(0.0, self.tier_2) / self.seconds_per_step)

    @property
    def needed(self) -> float:
        """Minutes with which both tiers have their fewest worthwhile steps."""
        return (self.reading + self.finishing + self.least) / 60

    @property
    def too_short(self) -> str:
        """Sentence on a time that is too short for a tier to learn something; "" if it is long enough."""
        short = []
        if self.tier_1 < self.shortest:
            short.append(f"tier 1 a time of {_clock(self.tier_1)} (it takes at least {_clock(self.shortest)})")
        if self.n_steps < MIN_STEPS:
            short.append(f"tier 2 {self.n_steps} steps (it takes at least {MIN_STEPS})")
        if not short:
            return ""
        return (
            f"too few steps: {self.minutes:g} minutes leave {' and '.join(short)}; about {_rounded(self.needed)} "
            "minutes are needed here"
        )

    @property
    def too_few(self) -> str:
        """Sentence on held-out images that are too few for tier 2 to be used at all; "" if there are enough."""
        if self.usage.n_fusion >= FEWEST:
            return ""
        n = self.usage.n_fusion
        times = (
            f"{_rounded(FEWEST / n)} times as many images, or a --val so many times as large" if n else "more images"
        )
        return (
            f"tier 2 will be off: {n} held-out images cannot tell whether it adds anything, which takes {FEWEST}; give "
            f"{times}"
        )

    def check(self) -> None:
        """Check that there is time for at least one step of tier 2.

        Raises
        ------
        TrainingError
            If there is none.
        """
        if self.n_steps < 1:
            raise TrainingError(
                f"{self.minutes:g} minutes are too few for anything: preparing took {_clock(self.reading)}, tier 1 "
                f"takes about {_clock(self.shortest)}, and fusion and measurement {_clock(self.finishing)}; about "
                f"{_rounded(self.needed)} minutes are needed here"
            )

    def __str__(self) -> str:
        more = f" (up to {_clock(self.longest)} while it improves)" if self.longest > self.tier_1 else ""
        return (
            f"{self.minutes:g} minutes: {_clock(self.reading)} preparing (done), about {_clock(self.tier_1)} tier 1"
            f"{more}, {_clock(self.tier_2)} tier 2 ({self.n_steps} steps), {_clock(self.finishing)} fusion and "
            "measurement"
        )


def _clock(seconds: float) -> str:
    """Minutes and seconds: 1:05."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))


def _rounded(needed: float) -> str:
    """Write what is needed, rounded up to a tenth below ten and to a whole number from there."""
    return f"{-(-needed * 10 // 1) / 10:g}" if needed < 10 else f"{-(-needed // 1):.0f}"
