"""Comparison of a pretrained network's features with a new network, before a training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf

from hybridclf import train_pair
from hybridclf.data.datasets import load_labelled
from hybridclf.data.holding_out import unpack
from hybridclf.pair_training import comparison, tier_1
from hybridclf.pair_training.comparison import compare
from hybridclf.pair_training.networks import PROPOSERS, new_trainable
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.start_from import Start
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.training.trainer import Trainer
from tests.pair_training.squares import SIDE, draw

STEPS = 40
SETTINGS: dict[str, Any] = {"minutes": 0.2, "image_size": 16, "validation_fraction": 0.4}


class Features:
    """Feature model of the mean colour of an image, or of nothing but noise. It keeps the images it was asked about."""

    def __init__(self, noise: bool) -> None:
        self.noise, self.feature_side = noise, SIDE
        self.asked: list[np.ndarray] = []

    def features(self, images: np.ndarray) -> np.ndarray:
        self.asked += list(images)
        if self.noise:
            return np.random.default_rng(0).normal(size=(len(images), 3)).astype(np.float32)
        return images.mean(axis=(1, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of three colours, a folder per colour."""
    return draw(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingData:
    settings = PairSettings(image_size=16, validation_fraction=0.4)
    return TrainingData.of(load_labelled(folder, SIDE), torch.device("cpu"), True, settings)


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty images a second, and a number of steps that no clock decides."""
    monkeypatch.setattr(comparison, "seconds_per_image", lambda *_: 0.05)
    monkeypatch.setattr(comparison, "steps_in", lambda *_: STEPS)


def test_a_new_network_is_better_than_features_that_tell_nothing(
    data: TrainingData, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(Features(noise=True), data, 100.0, progress=True)
    assert found.new_is_better and "both kinds of tier 1 for about 5 seconds each" in capsys.readouterr().err
    # a twentieth of the seconds, of 20 images each, a quarter of these held out but 18 at most
    assert "of 18 held-out images a linear classifier on the features of 54 is right for" in found.reason
    assert f"a new network after {STEPS} steps for 100.0 % (82.4 to 100.0)" in found.reason


def test_the_new_network_is_that_of_the_pair_to_start_from(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, bool]] = []

    def made(some: TrainingData, spec: str) -> Any:
        found = new_trainable(some, spec)
        tried.append((spec, bool((found.network[-1].groups[0][0].weight == 0).all())))
        return found

    earlier = new_trainable(data, "timm:convnet32")
    torch.nn.init.zeros_(earlier.network[-1].groups[0][0].weight)
    earlier.save(earlier.network, tmp_path / "proposer")
    settings = {"proposer": "timm:convnet32", "image_size": 16}
    start = Start(tmp_path, ["other"], False, settings, np.empty(0, np.uint32))
    monkeypatch.setattr(comparison, "new_trainable", made)
    compare(Features(noise=True), replace(data, start=start), 100.0, progress=False)
    compare(Features(noise=True), data, 100.0, progress=False)
    assert tried == [("timm:convnet32", True), ("timm:convnet16", False)]


def test_features_that_tell_as_much_are_kept(data: TrainingData) -> None:
    found = compare(Features(noise=False), data, 100.0, progress=False)
    assert (
        not found.new_is_better
        and "the features of 54 is right for 100.0 % (82.4 to 100.0), a new network" in found.reason
    )


def test_a_difference_that_may_be_chance_decides_nothing() -> None:
    each, alone = np.arange(20), np.arange(20) == 0
    nothing = np.zeros(20, dtype=bool)
    assert not comparison._is_better(alone, nothing, each)
    assert comparison._is_better(np.arange(20) < 5, nothing, each)
    # five images of one group are one case
    assert not comparison._is_better(np.arange(20) < 5, nothing, np.repeat(np.arange(4), 5))


def test_images_that_the_result_is_measured_on_are_not_looked_at(data: TrainingData) -> None:
    model = Features(noise=False)
    found = compare(model, data, 100.0, progress=False)
    seen = {photo.tobytes() for photo in model.asked}
    assert seen.isdisjoint({photo.tobytes() for photo in data.held_out_photos[data.measure_on]})
    asked = {photo.tobytes() for photo in data.held_out_photos[found.asked]}
    assert asked == seen & {photo.tobytes() for photo in data.held_out_photos[data.fit_on]} and len(asked) == 18


@pytest.mark.parametrize(
    ("seconds", "is_new", "reason"),
    [
        (11.2, True, "its features and answers would take 0.2 of 0.2 minutes"),
        (11.6, False, "there is no time to try a new network"),
        (12.0, False, "there is no time to try a new network"),
    ],
)
def test_without_time_nothing_is_tried(data: TrainingData, seconds: float, is_new: bool, reason: str) -> None:
    """Features of all 54 images take 2.7 seconds, 162 answers 8.1, and features for a comparison two more."""
    model = Features(noise=True)
    found = compare(model, data, seconds, progress=False)
    assert (found.new_is_better, len(model.asked)) == (is_new, 0) and reason in found.reason


def test_too_few_held_out_images_tell_nothing(data: TrainingData) -> None:
    few = replace(data, fit_on=data.fit_on[: comparison.FEWEST - 1])
    model = Features(noise=True)
    found = compare(model, few, 100.0, progress=False)
    assert not found.new_is_better and "too few images are held out" in found.reason and not model.asked


def test_every_group_is_asked_about_before_any_is_twice(data: TrainingData) -> None:
    films = replace(data, held_out_groups=np.arange(len(data.held_out_at)) // 5)
    groups = films.held_out_groups[films.fit_on]
    n = len(np.unique(groups))
    assert len(np.unique(groups[:n])) < n  # in their own order some would come twice
    asked = comparison._asked(films, n)
    assert len(np.unique(films.held_out_groups[asked])) == n == len(asked)
    assert set(asked.tolist()) <= set(films.fit_on.tolist())


# --- in a training ----------------------------------------------------------------------------------------------------


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pretrained network of "auto": small, of random weights, which is enough to tell colours."""
    monkeypatch.setattr(comparison, "seconds_per_image", lambda *_: 0.0125)
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(network, str(tmp_path / "net"), {"num_classes": 7}, safe_serialization=True)
    monkeypatch.setattr(tier_1, "PRETRAINED", f"timm:local-dir:{tmp_path / 'net'}")
    return tier_1.PRETRAINED


def trained(folder: Path, out: Path) -> dict[str, Any]:
    """Log of a training with the default tier 1."""
    train_pair(folder, out, **SETTINGS)
    log: dict[str, Any] = json.loads((out / "training" / "log.json").read_text())
    return log


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_auto_takes_features_that_are_as_good(folder: Path, tmp_path: Path, backbone: str) -> None:
    log = trained(folder, tmp_path / "out")
    assert (log["settings"]["proposer"], log["settings"]["side"]) == (backbone, SIDE)
    assert f"on the features of {backbone}, fine-tuned if time allows: of 12 held-out images a" in log["tier_1"]


@pytest.mark.usefixtures("small")
def test_auto_takes_a_new_network_where_features_take_too_long(
    folder: Path, tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are read again in its size."""
    monkeypatch.setattr(comparison, "seconds_per_image", lambda *_: 10.0)
    log = trained(folder, tmp_path / "out")
    assert log["settings"]["proposer"] in PROPOSERS and log["settings"]["side"] == 16 and "seen" not in log
    assert f"from scratch, not {backbone}: its features and answers would take 36.0 of 0.2 minutes" in log["tier_1"]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_images_that_spoke_for_a_new_network_are_trained_on(
    folder: Path, tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is not measured on them, although the images are split anew; a resumed training knows."""
    monkeypatch.setattr(comparison, "_is_better", lambda *_: True)
    advance = Trainer._advance

    def stop(self: Trainer) -> torch.Tensor:
        if self.step == 4 and self.n_steps != STEPS:
            raise KeyboardInterrupt
        return advance(self)

    log = trained(folder, tmp_path / "out")
    assert log["settings"]["proposer"] in PROPOSERS and f"not {backbone}: of 12 held-out" in log["tier_1"]
    seen = unpack(log["seen"])
    assert len(seen) == 12 and np.isin(seen, unpack(log["trained_on"])).all()
    assert not np.isin(seen, unpack(log["fitted_on"])).any()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, tmp_path / "resumed")
    train_pair(folder, tmp_path / "resumed", resume=True, proposer="auto")
    for name in ("denoiser.safetensors", "proposer/model.safetensors"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
