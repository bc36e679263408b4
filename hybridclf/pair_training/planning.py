"""Plan of a training's time, by the speed of a few steps."""

from collections.abc import Sequence
from dataclasses import asdict

from torch import nn

from ..ports import Trainable
from .recipe import CHECKED, Job, TrainingData, proposer_job, seconds_per_row
from .run import LOG_EVERY, TrainingRun, seconds_per_step
from .tier_1 import Tier1
from .time_budget import FINISHING_SHARE, HeldOutUse, TimeBudget, TimePlan

__all__ = ["largest_in_time", "plan_time", "use_held_out"]

OVERHEAD = 3.0
"""Time of fusion and measurement, as a multiple of tier 2's rows in them.

The rest are the loop around it, tier 1's answers and the fit of the fusion: 2.8 and 3.6 times, beside a pretrained
tier 1 on a core that others used too.
"""


ENOUGH_PASSES = 12
"""Passes over the training images that a network of tier 1 makes in its time, or else a smaller one learns more."""


def largest_in_time(specs: Sequence[str], data: TrainingData, seconds: float) -> tuple[str, Trainable]:
    """Make the largest new network of tier 1 with time for `ENOUGH_PASSES`, by the speed of a few steps.

    Parameters
    ----------
    specs : sequence of str
        Specs of networks, from the smallest on.
    data : TrainingData
        Images.
    seconds : float
        Time of its training.
    """
    spec, chosen = specs[0], data.new_trainable(specs[0])
    for larger in specs[1:]:
        trainable = data.new_trainable(larger)
        trainer = proposer_job(data, trainable.network).trainer
        if ENOUGH_PASSES * trainer.steps_per_pass * seconds_per_step(trainer) > seconds:
            break
        spec, chosen = larger, trainable
    return spec, chosen


def plan_time(budget: TimeBudget, data: TrainingData, tier_1: Tier1, job: Job) -> TimePlan:
    """Share out the time that is left, by the speed of a few steps.

    Raises
    ------
    TrainingError
        If there is none for tier 2.
    """
    with budget.spending("reading"):
        row = seconds_per_row(job.trainer.network, data)
        # a log entry comes with a check of the held-out loss at most
        step = seconds_per_step(job.trainer) + row * min(CHECKED, len(data.held_out)) / LOG_EVERY
        shortest = tier_1.shortest()
    # what tier 1 leaves is for both tier 2 and the end
    room = min(FINISHING_SHARE * 60 * budget.minutes, (budget.left - shortest) / 2)
    usage = _usage(data, max(0.0, room), row)
    finishing = OVERHEAD * row * usage.n_rows
    seconds = tier_1.share(budget.left - finishing, shortest)
    plan = TimePlan(
        minutes=budget.minutes,
        reading=60 * budget.minutes - budget.left,
        tier_1=seconds,
        tier_2=budget.left - finishing - seconds,
        finishing=finishing,
        seconds_per_step=step,
        shortest=shortest,
        usage=usage,
    )
    plan.check()
    return plan


def use_held_out(run: TrainingRun, budget: TimeBudget, data: TrainingData, network: nn.Module) -> HeldOutUse:
    """Choose how to use the held-out images in the time that is really left; the first choice is logged and kept."""
    if "usage" not in run.log:
        run.log["usage"] = asdict(_usage(data, budget.left, seconds_per_row(network, data)))
        run.write()
    return HeldOutUse(**run.log["usage"])


def _usage(data: TrainingData, seconds: float, row: float) -> HeldOutUse:
    """Choose a use of the held-out images that takes so long, at so many seconds per row of tier 2 alone."""
    return HeldOutUse.within(seconds, OVERHEAD * row, len(data.fit_on), len(data.measure_on), len(data.classes))
