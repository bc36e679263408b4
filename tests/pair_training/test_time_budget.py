"""The time of a training: what is left is the rest, and too little of it is said, with what is needed."""

import re
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridclf.errors import TrainingError
from hybridclf.fitting.recording import RECORDED_TRIALS
from hybridclf.pair_training import planning, tier_1
from hybridclf.pair_training.finish import RACE
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.tier_1 import MIN_PASSES, NetworkTier1
from hybridclf.pair_training.tier_1_time import Share
from hybridclf.pair_training.time_budget import (
    MIN_FUSION,
    MIN_STEPS,
    MIN_TRIALS,
    MOST_TRIALS,
    RACE_TRIALS,
    HeldOutCost,
    HeldOutUse,
    TimeBudget,
    TimePlan,
)

ALL, COST = HeldOutUse(100, 100, MOST_TRIALS), HeldOutCost(0.01, 0.0)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning takes no time: a busy machine would take from a plan what another was counted to need."""
    monkeypatch.setattr(TimeBudget, "spending", lambda *_: nullcontext())


def plan(
    tier_2: float, tier_1: float = 60.0, step: float = 1.0, shortest: float = 30.0, longest: float = 60.0
) -> TimePlan:
    return TimePlan(
        minutes=5.0,
        reading=60.0,
        tier_1=tier_1,
        tier_2=tier_2,
        longest=longest,
        finishing=30.0,
        seconds_per_step=step,
        seconds_per_answer=0.0,
        shortest=shortest,
        least=shortest + MIN_STEPS * step,
        usage=ALL,
    )


def test_what_is_spent_is_not_left() -> None:
    budget = TimeBudget(1.0, {"reading": 20.0})
    with pytest.raises(ZeroDivisionError), budget.spending("tier_1"):
        time.sleep(0.01)
        raise ZeroDivisionError
    assert budget.spent["tier_1"] >= 0.01  # counted all the same
    assert budget.left == 60.0 - 20.0 - budget.spent["tier_1"]


def test_enough_time_is_not_remarked_on() -> None:
    enough = plan(tier_2=MIN_STEPS)
    enough.check()
    assert enough.too_short == "" and "1:00 preparing (done)" in str(enough) and "(200 steps)" in str(enough)
    assert "about 1:00 tier 1, 3:20 tier 2" in str(enough)


def test_the_longest_training_of_tier_1_is_said() -> None:
    assert "about 1:00 tier 1 (up to 2:30 while it improves), 5:00 tier 2" in str(plan(tier_2=300, longest=150.0))


def test_held_out_images_that_turn_nothing_on_are_said_before_the_first_step() -> None:
    few, enough = (replace(plan(60), usage=HeldOutUse(n, 10, 8)) for n in (19, 20))
    assert few.too_few.startswith("tier 2 will be off: 19 held-out images cannot tell") and enough.too_few == ""
    assert few.too_few.endswith("give 1.1 times as many images, or a --val so many times as large")


@pytest.mark.parametrize(("tier_2", "tier_1"), [(MIN_STEPS - 2.0, 60.0), (MIN_STEPS + 100.0, 29.0)])
def test_too_few_steps_are_said_with_what_is_needed(tier_2: float, tier_1: float) -> None:
    short = plan(tier_2, tier_1)
    short.check()
    needed = (60 + 30 + 30 + MIN_STEPS) / 60  # reading, finishing, and the shortest of both tiers
    of_tier_2 = f"tier 2 {tier_2:g} steps (it takes at least 200"
    own = of_tier_2 if tier_2 < MIN_STEPS else "tier 1 a time of 0:29 (it takes at least 0:30"
    assert short.too_short.startswith(f"too few steps: 5 minutes leave {own}")
    assert f"about {needed + 0.05:.1f}" in short.too_short


@pytest.mark.parametrize("tier_2", [-100.0, 0.0, 0.5])
def test_no_time_at_all_is_an_error(tier_2: float) -> None:
    with pytest.raises(TrainingError, match=re.escape("5 minutes are too few for anything: preparing took 1:00")):
        plan(tier_2).check()


def test_held_out_images_are_used_as_far_as_time_allows() -> None:
    assert HeldOutUse.within(1e6, COST, 100, 100, 10) == ALL
    assert HeldOutUse.within(0.0, COST, 100, 100, 10) == HeldOutUse(MIN_FUSION, 100, MIN_TRIALS)
    assert HeldOutUse.within(0.0, COST, 5, 0, 10) == HeldOutUse(5, 0, MIN_TRIALS)
    assert HeldOutUse.within(0.0, COST, 100, 100, 43) == HeldOutUse(43, 100, MIN_TRIALS)  # one of each class
    some = HeldOutUse.within(60.0, COST, 100, 100, 10)
    assert MIN_FUSION < some.n_fusion < 100 and MIN_TRIALS < some.trials < MOST_TRIALS
    n_rows = some.n_fusion * RECORDED_TRIALS + 100 * (some.trials + RACE_TRIALS)
    assert 0.01 * n_rows == pytest.approx(some.seconds(COST)) and 50.0 < some.seconds(COST) <= 60.0


@pytest.mark.parametrize("seconds", [100.0, 400.0, 1000.0])
def test_answers_of_a_slow_tier_1_count(seconds: float) -> None:
    """Six to an image of the fusion, two thirds of them to corrupted copies of at most 500, and two to another."""
    slow = HeldOutCost(0.001, 0.1)
    some = HeldOutUse.within(seconds, slow, 10_000, 100, 10)
    of_tier_1 = 0.1 * (2 * some.n_fusion + 4 * min(some.n_fusion, 500) + 2 * 100)
    of_tier_2 = 0.001 * (some.n_fusion * RECORDED_TRIALS + 100 * (some.trials + RACE_TRIALS))
    assert some.seconds(slow) == pytest.approx(of_tier_1 + of_tier_2)
    assert some.n_fusion < HeldOutUse.within(seconds, HeldOutCost(0.001, 0.0), 10_000, 100, 10).n_fusion
    in_fusion = some.seconds(slow) - 100 * slow.measured(some.trials)
    assert 0.98 * seconds * 2 / 3 < in_fusion <= seconds * 2 / 3


def test_images_are_measured_before_more_are_fused() -> None:
    slow = HeldOutCost(0.015, 0.15)
    some = HeldOutUse.within(200.0, slow, 250, 250, 10)  # measuring takes 105 seconds, more than a third
    assert some.trials == MIN_TRIALS and some.n_fusion > MIN_FUSION and 190.0 < some.seconds(slow) <= 200.0
    assert HeldOutUse.within(50.0, slow, 250, 250, 10) == HeldOutUse.fewest(250, 250, 10)


def test_a_pair_is_saved_with_as_many_trials_as_are_reckoned_with() -> None:
    assert RACE.max_trials == RACE_TRIALS


def test_a_plan_survives_json() -> None:
    assert TimePlan.from_dict(asdict(plan(100.0))) == plan(100.0)


@pytest.mark.usefixtures("stopped_clock")
def test_tier_2_has_what_tier_1_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "seconds_per_row", lambda *_: 0.0)
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_: 0.1)
    monkeypatch.setattr(planning, "_usage", lambda *_: ALL)
    data: Any = SimpleNamespace(held_out=range(100), fit_on=range(50))
    job: Any = SimpleNamespace(trainer=SimpleNamespace(network=None))
    asked: list[tuple[float, ...]] = []
    own: Any = SimpleNamespace(
        shortest=lambda: 5.0,
        seconds_per_answer=lambda shortest: shortest / 50,
        share=lambda *given: asked.append(given) or Share(24.0, 40.0),
    )
    made = planning.plan_time(TimeBudget(5.0, {}), data, own, job)
    assert made.finishing == pytest.approx(0.1 * (6 * 100 + 2 * 100 + 50))
    assert asked == [(300.0 - made.finishing, 5.0, MIN_STEPS * 0.1)]
    assert (made.tier_1, made.tier_2) == (24.0, 300.0 - made.finishing - 24.0)
    assert (made.longest, made.least) == (40.0, 24.0 + MIN_STEPS * 0.1)


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("images", [1_000, 100_000])
def test_the_minutes_that_are_said_to_be_needed_are_enough(
    images: int, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "seconds_per_row", lambda *_: 0.0)
    monkeypatch.setattr(planning, "_usage", lambda *_: ALL)
    for module in (planning, tier_1):
        monkeypatch.setattr(module, "seconds_per_step", lambda trainer: trainer.seconds)
    data: Any = SimpleNamespace(held_out=range(100), fit_on=range(50))
    job: Any = SimpleNamespace(trainer=SimpleNamespace(network=None, seconds=step))
    first: Any = SimpleNamespace(trainer=SimpleNamespace(steps_per_pass=images // 128, seconds=0.1))
    trainable: Any = SimpleNamespace()
    own, nothing = NetworkTier1(trainable, first), {"reading": 9.0}
    short = planning.plan_time(TimeBudget(0.5, nothing), data, own, job)
    assert "too few steps" in short.too_short
    assert short.shortest == pytest.approx(0.1 * max(MIN_STEPS, MIN_PASSES * (images // 128)))
    enough = planning.plan_time(TimeBudget(short.needed + 1e-6, nothing), data, own, job)
    assert enough.too_short == ""
    less = planning.plan_time(TimeBudget(0.98 * short.needed, nothing), data, own, job)
    assert less.too_short


def test_the_use_of_held_out_images_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time that is really left, or the planned one if that is more, and a resumed training keeps it."""
    monkeypatch.setattr(planning, "seconds_per_row", lambda *_: 0.01)
    data: Any = SimpleNamespace(fit_on=range(100), measure_on=range(100), classes=range(10))
    network: Any = None
    first = planning.use_held_out(TrainingRun.start(tmp_path, {}), TimeBudget(1.0, {}), data, network)
    assert first == HeldOutUse.within(60.0, HeldOutCost(planning.OVERHEAD * 0.01, 0.0), 100, 100, 10) != ALL
    run = TrainingRun.resume(tmp_path, {})
    assert planning.use_held_out(run, TimeBudget(99.0, {}), data, network) == first
    late = TrainingRun.start(tmp_path / "late", {}, plan={"finishing": 60.0, "seconds_per_answer": 0.0})
    assert planning.use_held_out(late, TimeBudget(1.0, {"tier_2": 100.0}), data, network) == first
