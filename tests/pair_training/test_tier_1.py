"""Tier 1 of a trained pair: pretrained features with a linear classifier, scikit-learn's, or what can be had."""

import itertools
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from timm.models import save_for_hf
from typer.testing import CliRunner

from hybridclf import HybridClassifier, plugins, train_pair
from hybridclf.cli import app
from hybridclf.cli.train import _print_result as print_result
from hybridclf.data.datasets import DIGITS, load_labelled
from hybridclf.data.image_files import open_image
from hybridclf.errors import InvalidInputError, SavedModelError, TrainingError
from hybridclf.pair_training import pretrained_tier_1, tier_1, time_budget
from hybridclf.pair_training.networks import PROPOSERS
from hybridclf.pair_training.pretrained_tier_1 import PretrainedTier1
from hybridclf.pair_training.result import advice
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.tier_1 import SklearnTier1
from hybridclf.pair_training.tier_1_time import Share
from hybridclf.pair_training.time_budget import TimeBudget
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.ports import FeatureModel
from hybridclf.proposer import FunctionProposer
from hybridclf.training.trainer import Trainer
from tests.pair_training.squares import COLOURS, SIDE

pytestmark = pytest.mark.usefixtures("frozen")

SETTINGS: dict[str, Any] = {"minutes": 0.4, "image_size": 16, "validation_fraction": 0.2}


def network_in(folder: Path, n_classes: int) -> str:
    """Spec of a small timm network, saved as a folder."""
    network = timm.create_model("test_resnet", num_classes=n_classes)
    save_for_hf(network, str(folder), {"num_classes": n_classes}, safe_serialization=True)
    return f"timm:local-dir:{folder}"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small timm network as a folder; its weights are random, which is enough to tell colours."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("timm") / "net"
    save_for_hf(
        timm.create_model("test_resnet", num_classes=7), str(folder), {"num_classes": 7}, safe_serialization=True
    )
    return f"timm:local-dir:{folder}"


@pytest.fixture(scope="module")
def trained(data: Path, backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair") / "model"
    train_pair(data, out, proposer=backbone, **SETTINGS)
    return out


def log_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "training" / "log.json").read_text())
    return found


def answers(out: Path, data: Path) -> np.ndarray:
    return HybridClassifier.load(out).predict_proba([open_image(path) for path in sorted(data.glob("*/1*.png"))])


# --- pretrained features ----------------------------------------------------------------------------------------------


def test_a_head_is_fitted_on_features_of_the_models_own_size(trained: Path, data: Path, backbone: str) -> None:
    log, clf = log_of(trained), HybridClassifier.load(trained)
    assert log["validation"]["tier_1"] > 0.8 and log["settings"]["proposer"] == backbone
    assert list(log["n_steps"]) == ["denoiser"] and log["head"]["n_features"] > 0
    assert clf.image_shape_ == (SIDE, SIDE, 3) and clf.denoiser_.shape == (3, 16, 16) and clf.denoiser_.shrink == 4
    assert clf.proposer_.classes_.tolist() == sorted(COLOURS)
    labels = [path.parent.name for path in sorted(data.glob("*/1*.png"))]
    assert (clf.predict([open_image(path) for path in sorted(data.glob("*/1*.png"))]) == labels).mean() > 0.8


def test_the_folder_is_all_that_it_needs(trained: Path, data: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(trained, tmp_path / "moved")
    np.testing.assert_array_equal(answers(moved, data), answers(trained, data))
    assert {path.suffix for path in moved.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".png"}
    assert not list((moved / "training").glob("*.safetensors"))  # no features are left
    (moved / "proposer" / "model.safetensors").unlink()
    with pytest.raises(SavedModelError, match="proposer"):
        HybridClassifier.load(moved)


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 11])
def test_resumed_equals_uninterrupted(
    at: int, trained: Path, data: Path, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer._advance

    def stop(self: Trainer) -> torch.Tensor:
        if self.step == at:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", stop)
        with pytest.raises(KeyboardInterrupt):
            train_pair(data, tmp_path / "out", proposer=backbone, **SETTINGS)
    assert (tmp_path / "out" / "training" / "features.safetensors").exists()
    train_pair(data, tmp_path / "out", resume=True)
    for name in ("model.json", "denoiser.safetensors", "proposer/model.safetensors", "proposer/config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (trained / name).read_bytes()


def test_the_seconds_of_the_features_are_written_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed training, resumed, has the features and knows what they took."""
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    monkeypatch.setattr(pretrained_tier_1, "fit_linear_head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    model: Any = SimpleNamespace(features=lambda photos: np.zeros((len(photos), 2), np.float32))
    nothing = SimpleNamespace(seed=0)
    data: Any = SimpleNamespace(photos=np.zeros((3, 8, 8, 3)), y=torch.zeros(3), groups=None, settings=nothing)
    run = TrainingRun.start(tmp_path, {}, seconds={})
    run.budget = TimeBudget(1.0, run.log["seconds"])
    with pytest.raises(KeyboardInterrupt), run.budget.spending("tier_1"):
        PretrainedTier1(model, data).train(run, Share(1.0, 1.0), progress=False)
    assert TrainingRun.resume(tmp_path, {}).log["seconds"] == {"tier_1": 1}
    assert run.checkpoint("features").exists()


def test_a_training_starts_from_a_pair_with_such_a_tier_1(trained: Path, data: Path, tmp_path: Path) -> None:
    train_pair(data, tmp_path / "out", start_from=trained, **SETTINGS)
    assert log_of(tmp_path / "out")["settings"]["proposer"] == f"timm:local-dir:{trained / 'proposer'}"
    assert HybridClassifier.load(tmp_path / "out").denoiser_.shrink == 4


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_auto_takes_a_pretrained_network_if_it_can_be_had(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier_1, "PRETRAINED", backbone)
    assert tier_1.choose("auto", SIDE, "cpu").specs == (backbone,)
    small = tier_1.choose("auto", tier_1.SMALLEST - 1, "cpu")
    assert small.specs == PROPOSERS and "from scratch: images of 47 pixels" in small.note
    assert tier_1.choose("auto", 0, "cpu").note.endswith("from scratch: digits are no photographs")


def test_auto_makes_a_new_network_without_the_hub_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    chosen = tier_1.choose("auto", SIDE, "cpu")
    assert (chosen.specs, chosen.model, chosen.side) == (PROPOSERS, None, 0)
    assert "from scratch: no pretrained one can be had" in chosen.note and "HF_HUB_OFFLINE is set" in chosen.note


def test_weights_that_cannot_be_had(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SavedModelError, match=r"needs a download, HF_HUB_OFFLINE is set.*timm:local-dir:FOLDER"):
        train_pair(data, tmp_path / "out", proposer="timm:resnet18.a1_in1k")
    assert not (tmp_path / "out").exists()


def test_a_network_of_features_alone_will_do(data: Path, tmp_path: Path) -> None:
    """Such as a DINOv2. As a proposer by itself it is of no use."""
    folder = tmp_path / "net"
    save_for_hf(
        timm.create_model("test_resnet", num_classes=0), str(folder), {"num_classes": 0}, safe_serialization=True
    )
    spec = f"timm:local-dir:{folder}"
    chosen = tier_1.choose(spec, SIDE, "cpu")
    assert chosen.side > 0 and "a linear classifier on the features of" in chosen.note
    assert isinstance(chosen.model, FeatureModel)
    n_features = chosen.model.features([Image.new("RGB", (40, 30))]).shape[1]
    tunable = chosen.model.with_head(np.eye(3, n_features), np.zeros(3), ["a", "b", "c"])
    saved = tunable.save(tunable.network, tmp_path / "headed")
    assert plugins.load("proposer", saved).fit(None).classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(InvalidInputError, match="has no classifier, only features"):
        plugins.load("proposer", spec)


def test_images_smaller_than_any_network_takes_are_enlarged(data: Path, backbone: str, tmp_path: Path) -> None:
    """Of six pixels a side, where tier 1 and tier 2 take 16 at least."""
    for path in sorted(data.glob("*/*.png")):
        small = tmp_path / "small" / path.parent.name / path.name
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((6, 6)).save(small)
    train_pair(tmp_path / "small", tmp_path / "out", proposer=backbone, **SETTINGS)
    assert log_of(tmp_path / "out")["settings"]["side"] == 16
    clf = HybridClassifier.load(tmp_path / "out")
    images = [open_image(path) for path in sorted((tmp_path / "small").glob("*/1*.png"))]
    labels = [path.parent.name for path in sorted((tmp_path / "small").glob("*/1*.png"))]
    assert (clf.predict(images) == labels).mean() > 0.8


def test_out_inside_the_images_is_refused(data: Path) -> None:
    with pytest.raises(TrainingError, match=r"is inside .*where it would be taken for a class"):
        train_pair(data, data / "model")
    assert not (data / "model").exists()


def test_a_classifier_that_cannot_be_replaced_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, depth=1, embed_dim=12, num_heads=2)
    save_for_hf(
        network,
        str(tmp_path / "net"),
        {"num_classes": 3},
        {"depth": 1, "embed_dim": 12, "num_heads": 2},
        safe_serialization=True,
    )
    with pytest.raises(InvalidInputError, match="is no linear layer of its"):
        train_pair(data, tmp_path / "out", proposer=f"timm:local-dir:{tmp_path / 'net'}")
    assert not (tmp_path / "out").exists()


def test_a_proposer_without_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.plugins.offer", lambda *_: FunctionProposer(len))
    with pytest.raises(InvalidInputError, match="'other:x' has no features that a classifier of your classes"):
        tier_1.choose("other:x", SIDE, "cpu")


def test_scikit_learns_classifiers_are_in_the_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_pair(data, out, proposer="sklearn:GaussianNB", **SETTINGS)
    found = answers(shutil.move(out, tmp_path / "moved"), data)
    assert np.allclose(found.sum(axis=1), 1) and (tmp_path / "moved" / "proposer.skops").exists()
    assert not (tmp_path / "moved" / "proposer").exists()


# --- what is checked and said -----------------------------------------------------------------------------------------


def test_out_is_checked_before_anything_is_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.pair_training.train_pair.load_labelled", lambda *_: pytest.fail("it was read"))
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        train_pair(data, tmp_path / "file" / "out")


def test_a_class_of_one_image_is_named(data: Path, tmp_path: Path) -> None:
    few = shutil.copytree(data, tmp_path / "few")
    for path in sorted((few / "green").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InvalidInputError, match="class 'green' has one image, and at least 2 are needed"):
        train_pair(few, tmp_path / "out", proposer=PROPOSERS[0], **SETTINGS)


def test_the_command_prints_what_came_out(data: Path, backbone: str, tmp_path: Path) -> None:
    """Of images of which one is in two classes, under a seed."""
    double = shutil.copytree(data, tmp_path / "double")
    shutil.copy(double / "red" / "7.png", double / "blue" / "red 7.png")
    options = ["--proposer", backbone, "--minutes", "0.4", "--image-size", "16", "--val", "0.2", "--seed", "3"]
    result = CliRunner().invoke(app, ["train", str(double), str(tmp_path / "out"), *options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (conflict,) = found["conflicts"]
    assert "red/7.png (red)" in conflict and "blue/red 7.png (blue)" in conflict
    figures = found["validation"]
    assert sum(of["n"] for of in figures["classes"].values()) == figures["n"] == figures["held_out"]["measured"]
    for name in ("tier_1", "tier_2", "hybrid"):
        interval = figures["intervals"][name]
        assert interval["low"] <= figures[name] == interval["value"] <= interval["high"]
    wrong = round(figures["n"] * (1 - figures["hybrid"]))
    assert sum(each["n"] for each in figures["confusions"]) == wrong
    assert set(found["seconds"]) == {"reading", "tier_1", "tier_2", "finishing"}
    assert log_of(tmp_path / "out")["settings"]["seed"] == 3
    assert f"tier 1 is a linear classifier on the features of {backbone}" in result.stderr
    # of nine two are of one picture
    assert found["fine_tuning"]["sentence"].startswith(
        "Tier 1 is not fine-tuned: 8 held-out images of different groups do not tell"
    )
    assert "0.4 minutes: " in result.stderr and "preparing (done)" in result.stderr


def test_classes_without_a_measured_image_are_counted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = log_of(trained)["validation"]
    assert found["held_out"]["classes"] == found["held_out"]["measured_classes"] == len(COLOURS)
    print_result(found)
    assert "These images are of" not in capsys.readouterr().out
    print_result(found | {"held_out": found["held_out"] | {"classes": 43}})
    assert "These images are of 3 of 43 classes; the others may be harder." in capsys.readouterr().out
    for evaluations, said in ((0.0, "hybrid, tier 2 not asked"), (2.5, "hybrid, 2.5 evaluations per image")):
        print_result(found | {"evaluations": evaluations})
        assert said in capsys.readouterr().out


def test_where_tier_2_adds_nothing_the_answer_is_tier_1s(trained: Path, data: Path) -> None:
    clf, log = HybridClassifier.load(trained), log_of(trained)
    assert not clf.fusion_.pays  # as few steps teach it nothing that tier 1 does not know
    assert "Tier 2 is off: 9 held-out images do not tell" in log["advice"]
    clf.worth_ = replace(clf.worth_, n_images=50, n_groups=50)
    assert advice(clf, "").startswith("Tier 2 adds nothing here: it is off")
    assert advice(clf, "too few steps").endswith("There were too few steps.")
    images = [open_image(path) for path in sorted(data.glob("*/2*.png"))]
    posterior, results = clf.decide(images)
    assert all(result.evaluations == 0 for result in results)
    assert (clf.classes_[posterior.argmax(axis=1)] == clf.proposer_.predict([np.asarray(i) for i in images])).all()


# --- scikit-learn's time ----------------------------------------------------------------------------------------------


class Slow(ClassifierMixin, BaseEstimator):
    """Classifier whose fit takes a millisecond of the clock per image, of which it needs some."""

    now = 0.0

    def __init__(self, needs: int = 0) -> None:
        self.needs = needs

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Slow":
        if len(X) < self.needs:
            raise ValueError("too few")
        warnings.warn("on its way", stacklevel=2)
        Slow.now += 1e-3 * len(X)
        self.classes_ = np.unique(y)
        return self


@pytest.mark.parametrize(("needs", "share"), [(0, 1.0), (1000, 0.0)])
def test_time_of_a_classifier_by_that_of_an_eighth(needs: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PairSettings(image_size=8, validation_fraction=0.3)
    images = TrainingData.of(load_labelled(DIGITS, 8), torch.device("cpu"), False, settings)
    monkeypatch.setattr(tier_1, "time", SimpleNamespace(perf_counter=lambda: Slow.now))
    estimator = Slow(needs)
    assert SklearnTier1(estimator, images).shortest() == pytest.approx(share * 1e-3 * len(images.y))
    assert not hasattr(estimator, "classes_")
