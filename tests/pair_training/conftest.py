"""Trainings that are short, and of a length that no clock decides."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridclf.pair_training import planning, pretrained_tier_1, recipe, run, tier_1, time_budget, timing
from hybridclf.pair_training.tier_1_time import Share, time_share
from hybridclf.pair_training.time_budget import TimeBudget
from tests.pair_training.squares import draw

STEPS_PER_MINUTE = 80


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A narrow U-Net, eighty steps a minute, a checkpoint every ten; tier 1 has its planned share of the minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "WIDTHS", (16,))
        patch.setattr(run, "steps_in", lambda trainer, seconds: max(1, round(seconds * STEPS_PER_MINUTE / 60)))
        patch.setattr(run, "LOG_EVERY", 10)
        patch.setattr(run, "SAVE_EVERY", 0.0)
        patch.setattr(run, "SAVE_SHARE", math.inf)
        patch.setattr(timing.Pace, "is_late", lambda *_: False)
        patch.setattr(planning, "seconds_per_row", lambda *_: 1e-9)
        for module in (planning, tier_1):
            patch.setattr(module, "seconds_per_step", lambda *_: 60 / STEPS_PER_MINUTE)
        for module in (planning, tier_1, time_budget):
            patch.setattr(module, "MIN_STEPS", 1)
        patch.setattr(tier_1, "time_share", lambda *given: Share(time_share(*given).planned, 0.0))
        patch.setattr(TimeBudget, "left", property(_left))
        yield


@pytest.fixture(scope="module")
def frozen(small: None) -> Iterator[None]:
    """Such trainings, in which no time is enough for fine-tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained_tier_1, "STEP_COST", 1e9)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of three colours, a folder per colour."""
    return draw(tmp_path_factory.mktemp("squares"))


def _left(budget: TimeBudget) -> float:
    """Seconds, as if reading took none and tier 1 its share."""
    return 60 * budget.minutes * (1 - recipe.PROPOSER_SHARE * ("tier_1" in budget.spent))
