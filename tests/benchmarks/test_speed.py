"""The speed benchmark on sizes of a moment: what it counts is right, what it writes is complete."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speed
import torch
from figures import frontier, growth, loop_share, side_by_side, tiers, tuning_cost, workloads
from figures.common import Line, machine
from timing import flops, medians, ratio_range, recorded

from hybridclf import FixedTrials, PairedTTest, Race, Reranker, Staged

CPU = torch.device("cpu")
TINY = {
    "side-by-side": side_by_side.Sizes({"cpu": {"digits MLP": 2, "small SD": 1}}, (2, 1), (2, 4), 1),
    "frontier": frontier.Sizes(
        (0,), 0.3, 2, 300, (FixedTrials(4), FixedTrials(1), Staged((2, 1), (1, 3)), PairedTTest(0.1, 2, 4), Race()), 1
    ),
    "loop-share": loop_share.Sizes({"cpu": {"digits MLP": 2}}, 2, 1, {"cpu": 64}),
    "tiers": tiers.Sizes(8, 1, 1, {"nothing over nothing": ("pass", "pass")}),
}
TUNING = {"tuning": tuning_cost.Sizes({"cpu": ("small SD",)}, 1)}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the figures of tiny sizes go."""
    for name, sizes in (TINY | TUNING).items():
        monkeypatch.setitem(speed.FIGURES[name].SIZES, "small", sizes)
    return tmp_path


def test_medians_call_all_functions_in_turn() -> None:
    called: list[str] = []
    seconds = medians(lambda: called.append("a"), lambda: called.append("b"), repeats=2)
    assert called == ["a", "b"] * 3
    assert (seconds >= 0).all() and seconds.shape == (2,)


def test_a_ratio_is_of_the_same_turns() -> None:
    """While the machine was ten times slower, so were both."""
    assert ratio_range(np.array([2.0, 20.0, 3.0]), np.array([1.0, 10.0, 1.0])) == (2.0, (2.0, 3.0))


def test_flops_are_those_of_the_matrix_products() -> None:
    denoiser = workloads.late_mlp(3, 8, CPU)
    width, time, depth, size = 256, 128, 3, 8
    trunk = (
        32 * time + size * width + depth * (2 * width**2 + 2 * time * width) + width**2 + time * width + width * size
    )
    _, recorder = recorded(denoiser, FixedTrials(5), np.zeros((2, size)), [[0, 1, 2]] * 2)
    assert flops(recorder.replay) == 2 * (2 * 5 * trunk + 2 * 5 * 3 * width * size)
    reranker = Reranker(denoiser, allocation=FixedTrials(5))
    assert flops(lambda: reranker.rerank(np.zeros((2, size)), [[0, 1, 2]] * 2)) == flops(recorder.replay)


def test_lines_say_what_was_wanted() -> None:
    assert (Line("a", 2.0, at_least=1.5).wanted, Line("a", 2.0, at_least=1.5).verdict) == (">= 1.5", "holds")
    assert (Line("a", 2.0, at_most=1.05).wanted, Line("a", 2.0, at_most=1.05).verdict) == ("<= 1.05", "missed")
    assert (Line("a", 2.0).wanted, Line("a", 2.0).verdict) == ("", "")
    assert Line("a", 2.0, span=(1.5, 2.25)).measured == "2 x (1.5 to 2.25)"
    assert (Line("a", math.nan, at_least=1).measured, Line("a", math.nan, at_least=1).verdict) == (
        "not reached",
        "missed",
    )


@pytest.mark.slow
def test_every_figure_is_written_and_the_table_printed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main([*TINY, "--device", "cpu", "--out", str(out)])
    printed = capsys.readouterr().out
    for name in TINY:
        report = json.loads((out / f"{name}.json").read_text("utf-8"))
        assert report["machine"] == machine(CPU)
        assert (out / f"{name}.png").stat().st_size > 5000
        lines = speed.FIGURES[name].lines(report)
        assert lines and all(f"| {name} | {line.what} | {line.measured} |" in printed for line in lines)
    check_side_by_side(json.loads((out / "side-by-side.json").read_text("utf-8")))
    check_frontier(json.loads((out / "frontier.json").read_text("utf-8")))


def check_side_by_side(report: dict[str, Any]) -> None:
    for work in report["workloads"].values():
        assert work["same_answers"] == 1.0
        assert work["evaluations"] == work["our_evaluations"] == 10 * 2 + 2 * 2
        assert work["ratio"] == pytest.approx(work["reference_seconds"] / work["our_seconds"])  # of a single turn
        assert work["range"] == [work["ratio"]] * 2


def check_frontier(report: dict[str, Any]) -> None:
    exhaustive = report["exhaustive"]
    assert (exhaustive["setting"], exhaustive["evaluations"], exhaustive["rows"]) == ("FixedTrials(n=4)", 40, 4)
    assert len(report["points"]) == 2 * len(TINY["frontier"].settings)
    assert report["reached"]["FixedTrials without prior"]["evaluations"] <= 40
    for point in report["reached"].values():
        assert point["accuracy"] >= exhaustive["accuracy"] - frontier.TOLERANCE
        same = [
            p for p in report["points"] if p["method"] == point["method"] and p["evaluations"] < point["evaluations"]
        ]
        assert all(p["accuracy"] < exhaustive["accuracy"] - frontier.TOLERANCE for p in same)


def test_every_figure_has_every_profile() -> None:
    assert all(set(figure.SIZES) == set(speed.PROFILES) for figure in speed.FIGURES.values())


def test_an_unknown_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["speeds"])
    assert "there is no figure speeds; there is side-by-side, frontier" in capsys.readouterr().err


def test_growth_asks_for_tier_1s_ten_or_sifts_every_class() -> None:
    for tier_1, evaluations in ((True, 10 * 5), (False, 12 * 2 + 10 * 3)):
        results = growth.call(growth.Point(12, 3, 5, tier_1, keeps=True), CPU)()
        assert [r.evaluations for _, r in results] == [evaluations] * 3
    assert growth.call(growth.Point(12, 3, 2), CPU)() == []


@pytest.mark.slow
def test_the_cost_of_tuning_is_written(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["tuning", "--device", "cpu", "--out", str(out)])
    (tuned,) = json.loads((out / "tuning.json").read_text("utf-8"))["layouts"].values()
    assert 0 < tuned["tuned"] < tuned["weights"] / 100 and tuned["micro_batch_size"] == 16
    assert tuned["training_bytes"] >= tuned["forward_bytes"] > 4 * tuned["weights"]
    assert "| tuning | a step of a LoRA over its forward passes, small SD |" in capsys.readouterr().out


@pytest.mark.slow
def test_growth_is_timed_measured_and_drawn(tmp_path: Path) -> None:
    point = growth.Point(4, 2, 2)
    sizes = growth.Sizes(point, (4, 5), (2, 3), (2, 3), 1, (point, point))
    used = growth.in_process(point, CPU)
    assert 50 * growth.MIB < used["loaded"] <= used["peak"] and used["gpu_peak"] == 0
    axes = {
        axis: [growth.times(axis, t, sizes, CPU) | {"memory": [used, used]} for t in (True, False)]
        for axis in growth.AXES
    }
    pair = [asdict(point) | used] * 2
    report = {"repeats": 1, "axes": axes, "window_bytes": growth.WINDOW_BYTES, "beyond": pair, "kept": pair}
    assert [line.value for line in growth.lines(report) if line.what.startswith("peak memory,")] == [1.0] * 8
    growth.draw(report).savefig(tmp_path / "growth.png")


def test_beyond_the_window_are_more_images_than_it_holds() -> None:
    for point in growth.BEYOND:
        assert point.images > growth.WINDOW_BYTES // (4 * point.classes * point.trials)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a peak is forgotten on Linux alone")
def test_host_peak_is_the_highest_since_it_was_forgotten() -> None:
    """In a process of its own: what other tests leave behind may be freed at any moment."""
    steps = ("growth.forget_peaks()", "block = np.ones(2**25)", "del block", "growth.forget_peaks()")
    lines = ["import numpy as np", "from figures import growth"]
    lines += [line for step in steps for line in (step, "print(growth.host_peak())")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, held, freed, forgotten = map(int, done.stdout.split())
    assert min(held, freed) > before + 0.9 * 2**28 and forgotten < before + 0.5 * 2**28
