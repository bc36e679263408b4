"""Fine-tuning of a pretrained tier 1: it learns, is resumed exactly, and gives way to the linear classifier."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from typer.testing import CliRunner

from hybridclf import HybridClassifier, train_pair
from hybridclf.cli import app
from hybridclf.data.image_files import open_image
from hybridclf.pair_training import planning, pretrained_tier_1, recipe, run, time_budget
from hybridclf.pair_training.features import features_of
from hybridclf.pair_training.pretrained_tier_1 import PretrainedTier1
from hybridclf.pair_training.tier_1_time import Share, time_share
from hybridclf.pair_training.time_budget import TimeBudget, TimePlan
from hybridclf.training.trainer import Trainer
from hybridclf_adapters.timm import load

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SETTINGS: dict[str, Any] = {"minutes": 0.4, "image_size": 16, "validation_fraction": 0.5}


@pytest.fixture(scope="module", autouse=True)
def _thirty(small: None) -> Iterator[None]:
    """Thirty steps, whatever the clock says and the held-out loss does; enough time for them by the plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained_tier_1, "seconds_per_image", lambda *_: 0.01)
        patch.setattr(pretrained_tier_1, "MIN_STEPS", 1)
        patch.setattr(run, "steps_in", lambda *_: 30)
        patch.setattr(pretrained_tier_1, "time_share", lambda *given: Share(time_share(*given).planned, 0.0))
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small timm network of random weights, as a folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("timm") / "net"
    network = timm.create_model("test_efficientnet", num_classes=7)
    save_for_hf(network, str(folder), {"num_classes": 7}, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def command(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An uninterrupted training by the command: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("pair") / "whole"
    options = ["--proposer", f"timm:local-dir:{backbone}", "--minutes", "0.4", "--image-size", "16", "--val", "0.5"]
    result = CliRunner().invoke(app, ["train", str(data), str(out), *options])
    assert result.exit_code == 0, result.output
    return out, result.stdout


@pytest.fixture(scope="module")
def whole(command: tuple[Path, str]) -> Path:
    """Folder of that training."""
    return command[0]


def trained(data: Path, backbone: Path, out: Path) -> dict[str, Any]:
    """Log of a training."""
    train_pair(data, out, proposer=f"timm:local-dir:{backbone}", **SETTINGS)
    log: dict[str, Any] = json.loads((out / "training" / "log.json").read_text())
    return log


def stem(folder: Path) -> torch.Tensor:
    weights: torch.Tensor = timm.create_model(f"local-dir:{folder}", pretrained=True).conv_stem.weight
    return weights


def test_it_learns_and_is_saved(command: tuple[Path, str], data: Path, backbone: Path) -> None:
    whole, printed = command
    log = json.loads((whole / "training" / "log.json").read_text())
    tuned = log["fine_tuning"]
    assert tuned["after"] < 0.9 * tuned["before"] and tuned["kept"] and log["n_steps"]["proposer"] == 30
    said = re.fullmatch(
        r"Fine-tuning tier 1 in 30 steps changed the log loss of 24 held-out images, which chose among its steps, from "
        r"(\S+) to (\S+) "
        r"\((\S+), (\S+) to (\S+)\)\.",
        tuned["sentence"],
    )
    assert said is not None
    before, after, change, low, high = map(float, said.groups())
    assert (before, after) == (round(tuned["before"], 3), round(tuned["after"], 3))
    assert low < change < high and change == pytest.approx(after - before, abs=2e-3)
    assert tuned["sentence"] in printed
    assert not torch.equal(stem(whole / "proposer"), stem(backbone))
    clf = HybridClassifier.load(whole)
    files = sorted(data.glob("*/*.png"))
    answers = clf.proposer_.predict([np.asarray(open_image(path)) for path in files])
    assert np.mean(answers == [path.parent.name for path in files]) > 0.8


def test_the_linear_classifier_is_kept_if_it_is_better(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "TUNING_RATE", 3.0)  # which destroys the network
    log = trained(data, backbone, tmp_path / "out")
    tuned = log["fine_tuning"]
    assert tuned["after"] > tuned["before"] and not tuned["kept"]
    assert tuned["sentence"].endswith(": the linear classifier on frozen features is kept.")
    assert torch.equal(stem(tmp_path / "out" / "proposer"), stem(backbone))


def test_it_goes_on_while_its_loss_falls(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the most passes over the images."""
    set_up = pretrained_tier_1.fine_tuning_job

    def falling(*given: Any) -> recipe.Job:
        job = set_up(*given)
        return job._replace(held_out=lambda _: -float(job.trainer.step))

    monkeypatch.setattr(pretrained_tier_1, "fine_tuning_job", falling)
    monkeypatch.setattr(pretrained_tier_1, "MOST_PASSES", 25)
    monkeypatch.setattr(
        pretrained_tier_1, "time_share", lambda *given: Share(time_share(*given).planned, 10 * sum(given))
    )
    log = trained(data, backbone, tmp_path / "out")
    most = math.ceil(25 * log["validation"]["held_out"]["trained_on"] / recipe.TUNING_BATCH)
    assert log["n_steps"]["proposer"] == most > 30


@pytest.mark.parametrize("step", [pytest.param(0, marks=pytest.mark.slow), 11])
def test_resumed_equals_uninterrupted(
    step: int, whole: Path, data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer._advance

    def stop(self: Trainer) -> torch.Tensor:
        if self.step == step and len(self.images[0]) > SETTINGS["image_size"]:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(data, backbone, tmp_path / "parts")
    train_pair(data, tmp_path / "parts", resume=True)
    for name in ("model.json", "denoiser.safetensors", "proposer/model.safetensors", "proposer/config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("at", [12, 30])
def test_a_failure_costs_fine_tuning_alone(
    at: int, data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a lack of memory does, also where the training is interrupted later."""
    advance = Trainer._advance

    def fail(self: Trainer) -> torch.Tensor:
        if len(self.images[0]) > SETTINGS["image_size"] and self.step == 12:
            raise RuntimeError("no memory")
        if len(self.images[0]) == SETTINGS["image_size"] and self.step == at:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", fail)
        with pytest.raises(KeyboardInterrupt) if at < 30 else nullcontext():
            trained(data, backbone, tmp_path / "out")
    if at < 30:
        train_pair(data, tmp_path / "out", resume=True)
    log = json.loads((tmp_path / "out" / "training" / "log.json").read_text())
    assert log["fine_tuning"]["sentence"] == (
        "Fine-tuning tier 1 failed: no memory. The linear classifier on frozen features is kept."
    )
    assert torch.equal(stem(tmp_path / "out" / "proposer"), stem(backbone))


def test_features_that_took_all_of_the_time(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than at the plan."""
    seconds = [0.0]

    def slow(*arguments: Any) -> np.ndarray:
        seconds[0] += 1e4
        return features_of(*arguments)

    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(pretrained_tier_1, "features_of", slow)
    tuned = trained(data, backbone, tmp_path / "out")["fine_tuning"]
    assert not tuned["kept"] and "its features took all of its time" in tuned["sentence"]
    assert torch.equal(stem(tmp_path / "out" / "proposer"), stem(backbone))


def test_a_loss_that_is_not_finite_is_a_failure(
    data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "TUNING_RATE", 1e30)
    tuned = trained(data, backbone, tmp_path / "out")["fine_tuning"]
    assert not tuned["kept"] and "the training of the proposer diverged" in tuned["sentence"]
    assert torch.equal(stem(tmp_path / "out" / "proposer"), stem(backbone))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize(("name", "arguments"), [("efficientvit_m0", {"img_size": 64}), ("repvgg_a0", {})])
def test_steps_of_networks_with_caches_and_with_strided_pointwise_stems(
    name: str, arguments: dict[str, Any], device: str, tmp_path: Path
) -> None:
    network = timm.create_model(name, num_classes=3, **arguments)
    network.pretrained_cfg.update(input_size=(3, 64, 64))
    save_for_hf(network, str(tmp_path / "net"), {"num_classes": 3}, arguments, safe_serialization=True)
    rng = np.random.default_rng(0)
    photos, y = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8), torch.tensor([0, 1] * 4)
    model = load(f"local-dir:{tmp_path / 'net'}", device=device)
    n_features = model.features(photos).shape[1]  # in evaluation, which fills caches
    tunable = model.with_head(rng.normal(0, 0.1, (2, n_features)), np.zeros(2), ["a", "b"])
    data: Any = SimpleNamespace(
        photos=photos,
        y=y.to(device),
        held_out_photos=photos,
        held_out_y=y.to(device),
        fit_on=np.arange(8),
        classes=["a", "b"],
        device=torch.device(device),
        mirror=True,
        settings=SimpleNamespace(seed=0),
    )
    job = recipe.fine_tuning_job(data, tunable)
    before, job.trainer.n_steps = job.held_out(job.trainer.average), 3
    assert len(list(job.trainer.run())) == 3
    assert job.held_out(job.trainer.average) != before
    loaded = load(tunable.save(job.trainer.average, tmp_path / "new").removeprefix("timm:")).fit(None)
    with torch.no_grad():
        logits = job.trainer.average(torch.from_numpy(photos).permute(0, 3, 1, 2).float().to(device))
    np.testing.assert_allclose(loaded.predict_log_proba(photos), logits.log_softmax(1).cpu(), atol=1e-3)


def test_a_training_starts_from_the_pairs_own_network(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has become of the folder that this one started from."""
    monkeypatch.setattr(pretrained_tier_1, "STEP_COST", 1e9)  # its features alone
    first = shutil.copytree(whole, tmp_path / "first")
    train_pair(data, tmp_path / "second", start_from=first, **SETTINGS)
    shutil.rmtree(first)
    train_pair(data, tmp_path / "third", start_from=tmp_path / "second", **SETTINGS)
    assert torch.equal(stem(tmp_path / "third" / "proposer"), stem(whole / "proposer"))


def test_a_training_for_other_classes_may_start_from_its_tier_2(whole: Path, data: Path, tmp_path: Path) -> None:
    """A new tier 1 then starts from nothing."""
    other = shutil.copytree(data, tmp_path / "other")
    (other / "red").rename(other / "ruby")
    train_pair(other, tmp_path / "out", start_from=whole, **SETTINGS | {"proposer": "timm:convnet16"})
    assert HybridClassifier.load(tmp_path / "out").classes_.tolist() == ["blue", "green", "ruby"]
    before, after = (json.loads((f / "training" / "log.json").read_text()) for f in (whole, tmp_path / "out"))
    assert after["tier_1"] == "tier 1 is a small network, trained from scratch"
    assert after["before"]["denoiser"] < before["before"]["denoiser"]


# --- its share of the time --------------------------------------------------------------------------------------------


def of(n: int, n_judged: int, n_groups: int | None = None) -> PretrainedTier1:
    """Tier 1 of so many training images, and held-out ones for the fusion, in groups if there are any."""
    model, groups = SimpleNamespace(), np.arange(n_judged) % (n_groups or n_judged)
    data: Any = SimpleNamespace(photos=np.zeros((n, 1)), fit_on=np.arange(n_judged), held_out_groups=groups)
    return PretrainedTier1(cast(Any, model), data)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round numbers."""
    monkeypatch.setattr(pretrained_tier_1, "STEP_COST", 3.0)
    monkeypatch.setattr(pretrained_tier_1, "MIN_STEPS", 100)
    monkeypatch.setattr(pretrained_tier_1, "time_share", time_share)


@pytest.mark.usefixtures("plain")
def test_time_of_the_features_alone_where_there_is_too_little() -> None:
    # 1,000 images in 100 seconds; four passes of 300 seconds, and seven checks of 100 images in 10 seconds each
    tier_1, enough = of(1000, 100), 100 + 4 * 300 + 70
    assert tier_1.share(enough + 99, 100.0, 100.0) == (100, 100)
    assert tier_1.share(enough + 101, 100.0, 100.0) == pytest.approx((enough, enough + 1))
    enough_both = enough / 0.9 + 1
    assert tier_1.share(enough_both, 100.0, 1000.0).planned == pytest.approx(enough)  # if tier 2 needs much
    assert tier_1.share(10000.0, 100.0, 1000.0) == (6000, 9000)  # the usual share of much time
    thirty = 100 + 30 * 300 + 70
    assert tier_1.share(100000.0, 100.0, 1000.0) == pytest.approx((thirty, thirty), rel=0.01)


@pytest.mark.usefixtures("plain")
def test_few_images_are_seen_often_enough_or_not_at_all() -> None:
    # of 100 images in 10 seconds 3,200 seen take 960 seconds
    tier_1, enough = of(100, 20), 10 + 960 + 7 * 2
    assert tier_1.share(enough + 9, 10.0, 10.0).longest == 10
    assert tier_1.share(enough + 11, 10.0, 10.0).planned == pytest.approx(enough)
    # too few to tell which is better
    assert of(100, 19).share(10000.0, 10.0, 10.0) == of(100, 90, 19).share(10000.0, 10.0, 10.0) == (10, 10)


@pytest.mark.usefixtures("plain")
def test_the_minutes_that_are_said_to_be_needed_leave_tier_2_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside fine-tuning, which comes first."""
    monkeypatch.setattr(planning, "seconds_per_row", lambda *_: 1e-9)
    monkeypatch.setattr(planning, "seconds_per_step", lambda *_: 1.0)
    for module in (planning, time_budget):
        monkeypatch.setattr(module, "MIN_STEPS", 200)
    monkeypatch.setattr(pretrained_tier_1, "seconds_per_image", lambda *_: 0.1)
    tier_1, job = of(1000, 100), SimpleNamespace(trainer=SimpleNamespace(network=None))
    tier_1.data.held_out = tier_1.data.measure_on = range(100)
    tier_1.data.classes = range(3)

    def plan(minutes: float) -> TimePlan:
        return planning.plan_time(TimeBudget(minutes, {}), tier_1.data, tier_1, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimeBudget, "left", property(lambda budget: 60 * budget.minutes))
        answers = 0.1 * (6 * 100 + 100 + 2 * 100) / 60  # tier 1's in fusion, for its temperature, and in measurement
        short = plan(25.4 + answers)
        assert short.finishing == pytest.approx(60 * answers)
        assert short.tier_1 == pytest.approx(1370) and "leave tier 2 15" in short.too_short
        assert 26.1 < short.needed - answers < 26.3 and plan(short.needed + 1e-3).too_short == ""


@pytest.mark.usefixtures("plain")
def test_the_minutes_that_fine_tuning_needs_are_said() -> None:
    plan = {"shortest": 100.0, "reading": 30.0, "finishing": 60.0}
    # 1,370 seconds of tier 1 are nine tenths of 1,522
    assert "about 27 minutes here" in of(1000, 100)._why_not(plan)
    assert of(1000, 100).share(27 * 60 - 90, 100.0, 1000.0).planned > 100
    assert "19 held-out images of different groups do not tell whether that helps; it takes 20." in of(
        1000, 19
    )._why_not(plan)
