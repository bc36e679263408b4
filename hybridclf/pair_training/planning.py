"""Plan of a training's time, by the speed of a few steps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from torch import nn

from ..models import LateUNet
from ..ports import Trainable
from ..training.trainer import Trainer
from .networks import WIDTHS, new_trainable, new_unet, started_unet
from .recipe import CHECKED, Job, denoiser_job, proposer_job
from .run import LOG_EVERY, TrainingRun
from .tier_1 import Tier1
from .time_budget import FINISHING_SHARE, MIN_STEPS, HeldOutCost, HeldOutUse, TimeBudget, TimePlan
from .timing import seconds_per_row, seconds_per_step
from .training_data import TrainingData

__all__ = ["new_denoiser", "new_proposer", "plan_time", "use_held_out"]

T = TypeVar("T")

OVERHEAD = 2.0
"""Time of fusion and measurement without the answers of a pretrained tier 1, as a multiple of tier 2's rows in them.

The rest are the loop around it, a small tier 1 and the fit of the fusion: 1.3 to 1.8 times in seven trainings of six
minutes, beside another one.
"""

ENOUGH_PASSES, ENOUGH_STEPS = 12, 400
"""Passes over the training images, and steps, with which a network has learned more than a smaller one in its time.

On 5,000 images of CIFAR-10 a network of tier 1 with twice the width was still behind after 4 passes and 150 steps, and
a U-Net after 2 passes and 60 steps.
"""


def new_proposer(specs: Sequence[str], data: TrainingData, seconds: float) -> tuple[str, Trainable]:
    """Make the largest new network of tier 1 that the time allows, and return its spec string beside it.

    Parameters
    ----------
    specs : sequence of str
        Specs of networks, from the smallest on.
    data : TrainingData
        Images.
    seconds : float
        Time of its training.
    """
    made = ((spec, new_trainable(data, spec)) for spec in specs)
    return _largest(
        made,
        lambda found: proposer_job(_uncompiled(data), found[1].network).trainer,
        lambda trainer: max(ENOUGH_STEPS, ENOUGH_PASSES * trainer.steps_per_pass),
        seconds,
    )


def new_denoiser(data: TrainingData, seconds: float) -> LateUNet:
    """Make the U-Net of the pair to start from, or the widest new one that so many seconds of training allow."""
    if data.start is not None:
        return started_unet(data, data.start)
    return _largest(
        (new_unet(data, width) for width in WIDTHS),
        lambda network: denoiser_job(_uncompiled(data), network).trainer,
        lambda _: ENOUGH_STEPS,
        seconds,
    )


def _largest(
    networks: Iterable[T], trainer_of: Callable[[T], Trainer], enough: Callable[[Trainer], int], seconds: float
) -> T:
    """The last of some networks, from the smallest on, with time for enough steps; if none has it, the first."""
    found = iter(networks)
    chosen = next(found)
    for larger in found:
        trainer = trainer_of(larger)
        if enough(trainer) * seconds_per_step(trainer) > seconds:
            break
        chosen = larger
    return chosen


def _uncompiled(data: TrainingData) -> TrainingData:
    """The same images for networks whose speed alone is asked for: compiling each would take minutes."""
    return replace(data, compiles=False)


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
    cost = HeldOutCost(OVERHEAD * row, tier_1.seconds_per_answer(shortest), len(data.fit_on))
    usage = _usage(data, room, cost)
    finishing = usage.seconds(cost)
    both, fewest = budget.left - finishing, MIN_STEPS * step
    share = tier_1.share(both, shortest, fewest)
    plan = TimePlan(
        minutes=budget.minutes,
        reading=60 * budget.minutes - budget.left,
        tier_1=share.planned,
        longest=share.longest,
        tier_2=both - share.planned,
        finishing=finishing,
        seconds_per_step=step,
        seconds_per_answer=cost.answer,
        shortest=shortest,
        least=max(shortest, share.planned) + fewest,
        usage=usage,
    )
    plan.check()
    return plan


def use_held_out(run: TrainingRun, budget: TimeBudget, data: TrainingData, network: nn.Module) -> HeldOutUse:
    """Choose how to use the held-out images in the time that is really left; the first choice is logged and kept.

    Tiers that took longer than planned leave at least the time that was planned for this: with the fewest images nobody
    could tell whether tier 2 pays.
    """
    if "usage" not in run.log:
        plan = run.log.get("plan", {})
        row, answer = seconds_per_row(network, data), plan.get("seconds_per_answer", 0.0)
        cost = HeldOutCost(OVERHEAD * row, answer, len(data.fit_on))
        run.log["usage"] = asdict(_usage(data, max(budget.left, plan.get("finishing", 0.0)), cost))
        run.write()
    return HeldOutUse(**run.log["usage"])


def _usage(data: TrainingData, seconds: float, cost: HeldOutCost) -> HeldOutUse:
    """Choose a use of the held-out images that takes so long."""
    return HeldOutUse.within(seconds, cost, len(data.fit_on), len(data.measure_on), len(data.classes))
