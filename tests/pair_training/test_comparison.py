"""Comparison of a pretrained network's features with a new network, before a training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from hybridclf import train_pair
from hybridclf.data.datasets import load_labelled
from hybridclf.pair_training import comparison, tier_1
from hybridclf.pair_training.comparison import compare
from hybridclf.pair_training.networks import PROPOSERS
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData

COLOURS = {"blue": (60, 60, 220), "green": (60, 220, 60), "red": (220, 60, 60)}
SIDE, STEPS = 64, 40
SETTINGS: dict[str, Any] = {"minutes": 0.4, "image_size": 16, "validation_fraction": 0.4}


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
    """Noise with a square of one of three colours, a folder per colour."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for i in range(30):
            picture = rng.integers(0, 120, (SIDE, SIDE, 3))
            x, y = rng.integers(0, SIDE // 2, 2)
            picture[y : y + SIDE // 2, x : x + SIDE // 2] = np.array(colour) - rng.integers(0, 60, 3)
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingData:
    settings = PairSettings(image_size=16, validation_fraction=0.4)
    return TrainingData.of(load_labelled(folder, SIDE), torch.device("cpu"), True, settings)


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second per 20 images, and a number of steps that no clock decides."""
    monkeypatch.setattr(comparison, "seconds_per_image", lambda *_: 0.05)
    monkeypatch.setattr(comparison, "steps_in", lambda *_: STEPS)


def test_a_new_network_is_better_than_features_that_tell_nothing(data: TrainingData) -> None:
    found = compare(Features(noise=True), data, 100.0, progress=False)
    assert found.new_is_better
    # a twentieth of the seconds, of 20 images each, a quarter of these held out
    assert "of 18 held-out images a linear classifier on the features of 54 is right for" in found.reason
    assert f"a new network after {STEPS} steps for 100%" in found.reason


def test_features_that_tell_as_much_are_kept(data: TrainingData) -> None:
    found = compare(Features(noise=False), data, 100.0, progress=False)
    assert not found.new_is_better and "the features of 54 is right for 100%, a new network" in found.reason


def test_images_that_the_result_is_measured_on_are_not_looked_at(data: TrainingData) -> None:
    model = Features(noise=False)
    compare(model, data, 100.0, progress=False)
    seen = {photo.tobytes() for photo in model.asked}
    assert seen.isdisjoint({photo.tobytes() for photo in data.held_out_photos[data.measure_on]})
    assert len(seen & {photo.tobytes() for photo in data.held_out_photos[data.fit_on]}) == 18


@pytest.mark.parametrize(
    ("seconds", "is_new", "reason"),
    [(3.0, True, "features would take 0.0 of 0.1 minutes"), (3.7, False, "too little time or too few held-out images")],
)
def test_without_time_nothing_is_tried(data: TrainingData, seconds: float, is_new: bool, reason: str) -> None:
    """Features of 54 images take 2.7 seconds; a twentieth of 3.7 seconds is enough for three images."""
    model = Features(noise=True)
    found = compare(model, data, seconds, progress=False)
    assert (found.new_is_better, len(model.asked)) == (is_new, 0) and reason in found.reason


def test_some_images_have_all_classes_first(data: TrainingData) -> None:
    some = comparison._some(data, 10)
    assert len(set(some.tolist())) == 10
    assert sorted(data.y.numpy()[some[:3]].tolist()) == [0, 1, 2]
    assert len(comparison._some(data, 10**6)) == len(data.y)


# --- in a training ----------------------------------------------------------------------------------------------------


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pretrained network of "auto": small, of random weights, which is enough to tell colours."""
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


@pytest.mark.usefixtures("small")
def test_auto_takes_features_that_are_as_good(folder: Path, tmp_path: Path, backbone: str) -> None:
    log = trained(folder, tmp_path / "out")
    assert (log["settings"]["proposer"], log["settings"]["side"]) == (backbone, SIDE)
    assert log["tier_1"].startswith("tier 1 is a linear classifier on the features of")


@pytest.mark.usefixtures("small")
def test_auto_takes_a_new_network_where_features_take_too_long(
    folder: Path, tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are read again in its size."""
    monkeypatch.setattr(comparison, "seconds_per_image", lambda *_: 10.0)
    log = trained(folder, tmp_path / "out")
    assert log["settings"]["proposer"] in PROPOSERS and log["settings"]["side"] == 16
    assert "from scratch: features would take 9.0 of 0.4 minutes" in log["tier_1"]
