"""A training in a folder: it stops, goes on, and is refused where it must not."""

import json
import math
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybridclf.errors import TrainingError
from hybridclf.pair_training import run as training_run
from hybridclf.pair_training import time_budget, timing
from hybridclf.pair_training.checkpoint import load_tensors, save_tensors
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.tier_1 import NetworkTier1
from hybridclf.pair_training.tier_1_time import Share
from hybridclf.pair_training.time_budget import TimeBudget
from hybridclf.pair_training.timing import steps_in
from hybridclf.training.trainer import Trainer, TrainerConfig

SETTINGS = {"minutes": 1.0, "images": "abc"}


def noisy_loss(network: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    return nn.functional.cross_entropy(network(x + 0.1 * torch.randn(x.shape, generator=rng)), y)


def trainer(seed: int = 0) -> Trainer:
    """A convolution with batch normalisation, laid out channels last, on 50 images in batches of 16."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 2))
    x, y = torch.randn(50, 3, 5, 5, generator=rng), torch.randint(2, (50,), generator=rng)
    config = TrainerConfig(batch_size=16, learning_rate=1e-2, ema_decay=0.9)
    return Trainer(network.to(memory_format=torch.channels_last), x, y, noisy_loss, config, 30, seed)


def no_check(_: nn.Module) -> float:
    return 0.0


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """As on a disk with no room: files may not grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty steps, an entry every five, a checkpoint with every entry."""
    monkeypatch.setattr(training_run, "LOG_EVERY", 5)
    monkeypatch.setattr(training_run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(training_run, "SAVE_SHARE", math.inf)
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 30)


class Interrupted(Exception):
    pass


def interrupted_at(step: int) -> Trainer:
    """A trainer that is interrupted when it is about to take that step."""
    stopped = trainer()
    advance = stopped._advance

    def advance_or_stop() -> Tensor:
        if stopped.step == step:
            raise Interrupted
        return advance()

    stopped._advance = advance_or_stop  # type: ignore[method-assign]
    return stopped


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [0, 3, 12, 29])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, step: int) -> None:
    whole = TrainingRun.start(tmp_path / "whole", SETTINGS)
    expected = whole.train("part", trainer(), 60, no_check).state_dict()
    with pytest.raises(Interrupted):
        TrainingRun.start(tmp_path / "parts", SETTINGS).train("part", interrupted_at(step), 60, no_check)
    resumed = TrainingRun.resume(tmp_path / "parts", SETTINGS)
    actual = resumed.train("part", trainer(), 60, no_check).state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    losses = [[(e["step"], e["loss"]) for e in run.log["losses"]["part"]] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    assert [s for s, _ in losses[0]] == [5, 10, 15, 20, 25, 30]


def pressed_in(step: int, times: int = 1) -> Trainer:
    """A trainer in whose loss Ctrl-C is pressed, in the middle of that step."""
    pressed = trainer()

    def loss(*arguments: Any) -> Tensor:
        if pressed.step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return noisy_loss(*arguments)

    pressed.loss = loss
    return pressed


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background, which a shell makes deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("quick", "interruptible")
@pytest.mark.parametrize("step", [0, 3, 12, 29])
def test_ctrl_c_finishes_the_step_and_keeps_it(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TrainingRun.start(tmp_path / "whole", SETTINGS)
    expected = whole.train("part", trainer(), 60, no_check).state_dict()
    monkeypatch.setattr(training_run, "SAVE_EVERY", 1e9)
    run = TrainingRun.start(tmp_path / "parts", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run.train("part", pressed_in(step), 60, no_check)
    assert int(load_tensors(run.checkpoint("part"))["step"]) == step + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = TrainingRun.resume(tmp_path / "parts", SETTINGS)
    assert resumed.log["losses"]["part"][-1]["step"] == step + 1
    actual = resumed.train("part", trainer(), 60, no_check).state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("quick", "interruptible")
def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path / "out", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run.train("part", pressed_in(12, times=2), 60, no_check)
    assert int(load_tensors(run.checkpoint("part"))["step"]) == 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("quick")
def test_others_ways_with_ctrl_c_are_left_alone(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        stepped = TrainingRun.start(tmp_path / "main", SETTINGS).train("part", pressed_in(12), 60, no_check)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT] and isinstance(stepped, nn.Module)
    with ThreadPoolExecutor(1) as pool:  # which no signal reaches
        run = TrainingRun.start(tmp_path / "thread", SETTINGS)
        assert isinstance(pool.submit(run.train, "part", trainer(), 60, no_check).result(), nn.Module)


def test_checkpoints_that_take_long_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a twentieth of the time at most, and come once a minute at most."""
    now, saved = [0.0], []

    def loss(*arguments: Any) -> Tensor:
        now[0] += 1.0
        return noisy_loss(*arguments)

    def save(path: Path, tensors: dict[str, Tensor]) -> None:
        saved.append((now[0], int(tensors["step"])))
        now[0] += 10.0

    monkeypatch.setattr(training_run, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 500)
    monkeypatch.setattr(training_run, "save_tensors", save)
    stepping = trainer()
    stepping.loss = loss
    TrainingRun.start(tmp_path, SETTINGS).train("part", stepping, 60, no_check)
    assert [step for _, step in saved] == [80, 300, 500]  # after 80 seconds, 210 more, and in the end


@pytest.mark.usefixtures("quick")
def test_a_finished_part_is_not_trained_again(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path, SETTINGS)
    expected = run.train("part", trainer(), 60, no_check).state_dict()
    again = TrainingRun.resume(tmp_path, {}).train("part", interrupted_at(30), 60, no_check).state_dict()
    assert all(torch.equal(again[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("quick")
def test_the_seconds_of_an_interrupted_part_are_those_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed and resumed, it has spent as much as without the interruption, at a second a step."""
    clock = [100.0]
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def spend(run: TrainingRun, ticking: Trainer) -> float:
        run.budget, sound = TimeBudget(1.0, run.log.setdefault("seconds", {})), ticking.loss

        def loss(*arguments: Any) -> Tensor:
            clock[0] += 1.0
            return sound(*arguments)

        ticking.loss = loss
        with run.budget.spending("part"):
            run.train("part", ticking, 60, no_check)
        return run.budget.spent["part"]

    with pytest.raises(Interrupted):
        spend(TrainingRun.start(tmp_path, SETTINGS), interrupted_at(12))
    killed = TrainingRun.resume(tmp_path, SETTINGS)
    assert killed.log["seconds"] == {"part": 10.0} and int(load_tensors(killed.checkpoint("part"))["step"]) == 10
    assert spend(killed, trainer()) == 30.0


def test_a_timing_leaves_the_trainer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)
    timed, fresh = trainer(), trainer()
    few, many = (steps_in(timed, seconds) for seconds in (1e-9, 1e3))
    assert few == 1 < many
    before = fresh.state_dict()
    assert timed.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in timed.state_dict().items())


def test_time_becomes_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: int(seconds))
    with pytest.raises(Interrupted):
        TrainingRun.start(tmp_path, SETTINGS).train("part", interrupted_at(2), 4, no_check)
    run = TrainingRun.resume(tmp_path, {})
    stopped = trainer()
    run.train("part", stopped, 1000, no_check)
    assert run.log["n_steps"] == {"part": 4} and stopped.step == 4


@pytest.mark.usefixtures("quick")
def test_the_held_out_loss_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path / "a", SETTINGS)
    first = run.train("part", trainer(), 60, lambda network: 0.25).state_dict()
    assert [entry.get("held_out") for entry in run.log["losses"]["part"]] == [0.25] * 6
    second = TrainingRun.start(tmp_path / "b", SETTINGS).train("part", trainer(), 60, no_check).state_dict()
    assert all(torch.equal(second[name], value) for name, value in first.items())


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_where_a_training_may_start(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("dear")
    with pytest.raises(TrainingError, match="not empty"):
        TrainingRun.start(tmp_path / "full", SETTINGS)
    (tmp_path / "killed" / "training").mkdir(parents=True)
    (tmp_path / "killed" / "training" / "log.json.part").write_text("{")  # before its first log was whole
    assert TrainingRun.start(tmp_path / "killed", SETTINGS).log["settings"] == SETTINGS
    TrainingRun.start(tmp_path / "new" / "deep", SETTINGS)
    with pytest.raises(TrainingError, match="not finished; resume it"):
        TrainingRun.start(tmp_path / "new" / "deep", SETTINGS)


def test_what_may_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training to resume"):
        TrainingRun.resume(tmp_path, {})
    TrainingRun.start(tmp_path / "a", SETTINGS)
    with pytest.raises(
        TrainingError, match=r"minutes is 1.0, not 2.0; images is 'abc', not 'x'; resume it with its own"
    ):
        TrainingRun.resume(tmp_path / "a", {"minutes": 2.0, "images": "x"})
    assert TrainingRun.resume(tmp_path / "a", {"minutes": 1.0}).log["settings"] == SETTINGS
    (tmp_path / "a" / "model.json").touch()
    with pytest.raises(TrainingError, match="is finished"):
        TrainingRun.resume(tmp_path / "a", {})


def test_a_disk_that_refuses_the_start_is_left_as_it_was(tmp_path: Path) -> None:
    with small_files(10), pytest.raises(TrainingError, match=r"log\.json cannot be written: File too large; make room"):
        TrainingRun.start(tmp_path / "out", SETTINGS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        TrainingRun.start(tmp_path / "file" / "out", SETTINGS)


@pytest.mark.usefixtures("quick")
def test_a_disk_that_refuses_a_checkpoint_keeps_the_last_one(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        TrainingRun.start(tmp_path, SETTINGS).train("part", interrupted_at(12), 60, no_check)
    checkpoint = tmp_path / "training" / "part.safetensors"
    before = checkpoint.read_bytes()
    run = TrainingRun.resume(tmp_path, {})
    with small_files(len(before) - 1), pytest.raises(TrainingError, match=r"part\.safetensors cannot be written"):
        run.train("part", trainer(), 60, no_check)
    assert checkpoint.read_bytes() == before
    assert {path.name for path in checkpoint.parent.iterdir()} == {"log.json", "part.safetensors"}
    TrainingRun.resume(tmp_path, {}).train("part", trainer(), 60, no_check)


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_and_that_of_another_network(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path, SETTINGS)
    run.checkpoint("part").write_bytes(b"\0" * 20)
    with pytest.raises(TrainingError, match="cannot be read"):
        run.train("part", trainer(), 60, no_check)
    save_tensors(run.checkpoint("part"), {name: v[:0] for name, v in trainer().state_dict().items() if v.ndim})
    with pytest.raises(TrainingError, match="that of another training"):
        run.train("part", trainer(), 60, no_check)


def test_a_checkpoint_holds_tensors_alone(tmp_path: Path) -> None:
    """All of the state, in a format that runs no code, with the memory layout left out."""
    state = trainer().state_dict()
    save_tensors(tmp_path / "x.safetensors", state)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    header = (tmp_path / "x.safetensors").read_bytes()
    assert set(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])) == set(state)


# --- early stopping ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hundred(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred steps, of which every fifth is checked."""
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 100)


def falls_until(step: int, stepping: Trainer) -> Callable[[nn.Module], float]:
    """Held-out loss that falls until that step and then rises."""
    return lambda _: float(abs(stepping.step - step))


@pytest.mark.usefixtures("hundred")
def test_a_settled_loss_begins_the_cooldown_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    settled, plain, seen = trainer(), trainer(), {}

    def held_out(network: nn.Module) -> float:
        seen[settled.step] = {name: value.clone() for name, value in network.state_dict().items()}
        return falls_until(15, settled)(network)

    run = TrainingRun.start(tmp_path / "a", SETTINGS)
    best = run.train("part", settled, 60, held_out, patience=3).state_dict()
    # 15 is best, 30 the third check without a lower loss: 30 / 0.6 steps in all
    assert run.log["n_steps"] == {"part": 50} and settled.step == 50
    assert all(torch.equal(best[name], value) for name, value in seen[15].items())
    whole = TrainingRun.start(tmp_path / "b", SETTINGS)
    whole.train("part", plain, 60, falls_until(1000, plain), patience=3)
    assert whole.log["n_steps"] == {"part": 100}


@pytest.mark.usefixtures("hundred")
@pytest.mark.parametrize(
    ("last", "longest", "n_steps"), [(61, 240, 109), (76, 240, 134), (1000, 240, 240), (1000, 0, 100)]
)
def test_a_loss_that_still_falls_puts_the_cooldown_off(tmp_path: Path, last: int, longest: float, n_steps: int) -> None:
    """Until the first check without a lower loss, or a cooldown would end too late."""
    falling = trainer()
    run = TrainingRun.start(tmp_path, SETTINGS)
    run.train("part", falling, 100, falls_until(last, falling), patience=3, longest=longest)
    assert falling.step == n_steps


class SlowingClock:
    """Clock of a trainer whose steps take a second at first, and three from some step on."""

    def __init__(self, timed: Trainer, slow_from: int) -> None:
        self.timed, self.slow_from = timed, slow_from

    def monotonic(self) -> float:
        return float(self.timed.step + 2 * max(0, self.timed.step - self.slow_from))


@pytest.mark.usefixtures("hundred")
def test_slower_steps_begin_the_cooldown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried, in_time = trainer(), trainer()
    monkeypatch.setattr(training_run, "time", clock := SlowingClock(hurried, slow_from=20))
    run = TrainingRun.start(tmp_path / "a", SETTINGS)
    run.budget = TimeBudget(60.0, {})
    run.train("part", hurried, 100, no_check)
    # after 35 steps, in 65 seconds, a cooldown of 24 of the 2 seconds that they took since the fifth would take 48
    assert hurried.step == 59 and clock.monotonic() == 137  # not 100 steps, in 260 seconds
    assert run.log["n_steps"] == {"part": 59} and run.log["late"] == {"part": 100}
    monkeypatch.setattr(training_run, "time", SlowingClock(in_time, slow_from=90))  # in the cooldown, which is not cut
    run = TrainingRun.start(tmp_path / "b", SETTINGS)
    run.budget = TimeBudget(60.0, {})
    run.train("part", in_time, 100, no_check)
    assert in_time.step == 100 and "late" not in run.log


class CheckedClock(SlowingClock):
    """Clock of a trainer whose checks take some seconds each, and whose steps take some more than one."""

    def __init__(self, timed: Trainer, step: float, check: float) -> None:
        super().__init__(timed, 0)
        self.step, self.check, self.n_checks = step, check, 0

    def monotonic(self) -> float:
        return self.timed.step * self.step + self.n_checks * self.check

    def counted(self, held_out: Callable[[nn.Module], float]) -> Callable[[nn.Module], float]:
        """The same check, counted."""

        def check(network: nn.Module) -> float:
            self.n_checks += 1
            return held_out(network)

        return check


@pytest.mark.usefixtures("hundred")
@pytest.mark.parametrize(
    ("last", "step", "check", "most", "late"),
    [
        (30, 1.5, 0.0, 115, True),  # the planned time, as the loss does not fall
        (1000, 1.5, 0.0, 240, False),  # the longest, as it does
        (1000, 1.0, 5.0, 240, False),  # checks count in it
        (1000, 4.0, 0.0, 250, True),
    ],
)
def test_the_longest_training_ends_in_time(
    last: int, step: float, check: float, most: float, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = trainer()
    monkeypatch.setattr(training_run, "time", clock := CheckedClock(slow, step, check))
    run = TrainingRun.start(tmp_path, SETTINGS)
    run.budget = TimeBudget(60.0, {})
    held_out = clock.counted(falls_until(last, slow))
    run.train("part", slow, 100, held_out, patience=math.inf, longest=240)
    assert 0.85 * most <= clock.monotonic() <= 1.15 * most
    assert run.log.get("late", {}) == ({"part": 100} if late else {})


@pytest.mark.usefixtures("hundred")
def test_a_new_tier_1_trains_as_long_as_its_loss_falls(tmp_path: Path) -> None:
    falling = trainer()
    job: Any = SimpleNamespace(name="proposer", trainer=falling, held_out=falls_until(1000, falling), loss={})
    trainable: Any = SimpleNamespace()
    run = TrainingRun.start(tmp_path, SETTINGS, seconds={"tier_1": 10.0})
    NetworkTier1(trainable, job).train(run, Share(110.0, 250.0), False)
    assert falling.step == run.log["n_steps"]["proposer"] == 240


@pytest.mark.usefixtures("hundred")
def test_without_a_budget_steps_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = trainer()
    monkeypatch.setattr(training_run, "time", SlowingClock(slow, slow_from=20))
    run = TrainingRun.start(tmp_path, SETTINGS)
    run.train("part", slow, 100, no_check)
    assert slow.step == 100 and "late" not in run.log


@pytest.mark.usefixtures("hundred")
def test_a_resumed_training_has_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = interrupted_at(41), trainer()
    monkeypatch.setattr(training_run, "time", SlowingClock(first, slow_from=100))
    with pytest.raises(Interrupted):
        TrainingRun.start(tmp_path, SETTINGS).train("part", first, 100, no_check)
    # the first entry may include a compilation; at the second, 50, there are 15 seconds for a cooldown of 34
    monkeypatch.setattr(training_run, "time", SlowingClock(second, slow_from=100))
    run = TrainingRun.resume(tmp_path, SETTINGS)
    run.budget = TimeBudget(60.0, {})
    run.train("part", second, 25, no_check)
    assert second.step == 84 and run.log["late"] == {"part": 100}


@pytest.mark.usefixtures("hundred")
@pytest.mark.parametrize(
    ("step", "last", "n_steps"), [(s, 15, 50) for s in (3, 28, 31, 44)] + [(s, 76, 134) for s in (59, 63, 77, 90)]
)
def test_a_training_of_another_length_is_resumed_as_such(tmp_path: Path, step: int, last: int, n_steps: int) -> None:
    whole, first, second = trainer(), interrupted_at(step), trainer()

    def train(run: TrainingRun, trained: Trainer) -> nn.Module:
        return run.train("part", trained, 60, falls_until(last, trained), patience=3, longest=180)

    expected = train(TrainingRun.start(tmp_path / "a", SETTINGS), whole)
    with pytest.raises(Interrupted):
        train(TrainingRun.start(tmp_path / "b", SETTINGS), first)
    actual = train(TrainingRun.resume(tmp_path / "b", SETTINGS), second).state_dict()
    assert second.step == whole.step == n_steps
    assert all(torch.equal(actual[name], value) for name, value in expected.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True))


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_diverged_training_says_so_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    run, broken = TrainingRun.start(tmp_path / "out", SETTINGS), trainer()
    sound = broken.loss
    broken.loss = lambda *arguments: sound(*arguments) * (float("nan") if broken.step == 17 else 1.0)
    with pytest.raises(TrainingError, match="the training of the part diverged: at step 20 its loss is nan"):
        run.train("part", broken, 60, no_check)
    kept = load_tensors(run.checkpoint("part"))
    assert int(kept["step"]) == 15 and all(value.isfinite().all() for value in kept.values())


@pytest.mark.usefixtures("quick")
def test_a_part_is_not_resumed_in_another_way(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path / "out", SETTINGS)
    with pytest.raises(Interrupted):
        run.train("part", interrupted_at(12), 60, no_check)
    again, other = TrainingRun.resume(tmp_path / "out", SETTINGS), trainer()
    other.config = replace(other.config, muon=True)
    with pytest.raises(
        TrainingError, match=r"another version of hybridclf .*\(part\): muon was False, is True; resume it"
    ):
        again.train("part", other, 60, no_check)
    with pytest.raises(TrainingError, match=r"\(part\): smoothing was None, is 0\.1; resume it"):
        again.train("part", trainer(), 60, no_check, loss={"smoothing": 0.1})
    again.train("part", trainer(), 60, no_check)


def test_constants_and_versions_are_compared_by_name(tmp_path: Path) -> None:
    run = TrainingRun.start(tmp_path / "out", SETTINGS, recipe={"torch": "2.9", "a.TIMES": [0, 1], "a.GONE": 1})
    run.require_recipe(run.log["recipe"])
    with pytest.raises(
        TrainingError, match=r"torch was '2\.9', is '3\.0'; a\.GONE was 1, is None; a\.NEW was None, is 2;"
    ):
        TrainingRun.resume(tmp_path / "out", {}).require_recipe({"torch": "3.0", "a.TIMES": [0, 1], "a.NEW": 2})
