"""`hybridclf calibrate`, and a model's tier 2 behind another tier 1."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import Result
from PIL import Image
from sklearn.datasets import load_digits
from timm.models import save_for_hf
from typer.testing import CliRunner

from hybridclf import HybridClassifier, Race
from hybridclf.cli import app
from hybridclf.cli.classifier import behind, images_trained_on
from hybridclf.data.image_files import image_paths
from hybridclf.models import LateConditionedDenoiser


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--quiet"], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Digits as photographs: uint8 `[n, 8, 8, 3]`."""
    return (load_digits().images * 255 / 16).round().astype(np.uint8)[..., None].repeat(3, axis=3)


@pytest.fixture(scope="module")
def model(photographs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate") / "model"
    clf = HybridClassifier(max_iter=10, cv=0.3, allocation=Race(0.95, 4), top_k=5, random_state=0)
    clf.fit(photographs[:240], load_digits().target[:240]).save(folder)
    return folder


@pytest.fixture(scope="module")
def data(photographs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for i in range(300, 360):
        path = folder / str(load_digits().target[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photographs[i]).save(path)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with random weights for images of 60 pixels."""
    torch.manual_seed(0)
    folder, made = tmp_path_factory.mktemp("network"), timm.create_model("test_resnet", num_classes=10)
    made.pretrained_cfg.update(input_size=(3, 60, 60))
    save_for_hf(made, str(folder), model_config={"num_classes": 10}, safe_serialization=True)
    return f"timm:local-dir:{folder}"


def test_a_model_is_calibrated_as_in_python(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--confidence", "0.9", "--top-k", "3", "--max-trials", "2")
    result = invoke("calibrate", data, out, "--model", model, *arguments)
    assert result.exit_code == 0, result.output
    found = HybridClassifier.load(out)
    assert (found.allocation, found.top_k) == (Race(0.9, 2), 3)
    assert " ".join(result.stdout.split()) == str(found.worth_)
    paths = image_paths([data])
    labels = np.array([int(Path(path).parent.name) for path in paths])
    expected = HybridClassifier.load(model).set_params(allocation=Race(0.9, 2), top_k=3).calibrate(paths, labels)
    assert found.fusion_.prior_alone == pytest.approx(expected.fusion_.prior_alone, rel=1e-6)
    assert str(found.worth_) == str(expected.worth_)

    more = json.loads(
        invoke("calibrate", data, tmp_path / "more", "--model", model, "--json", "--max-trials", "1").stdout
    )
    assert (more["n_images"], more["model"], more["guarantee"]) == (60, str(tmp_path / "more"), None)
    again = HybridClassifier.load(more["model"])
    assert again.allocation == Race(0.95, 1) and again.top_k == 5  # the rest is the model's own
    assert more["worth"]["sentence"] == str(again.worth_) and more["asks_tier_2"] == again.fusion_.pays


def test_a_models_tier_2_behind_another_tier_1(model: Path, data: Path, network: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("calibrate", data, out, "--model", model, "--proposer", network, "--images", "40")
    assert result.exit_code == 0, result.output
    assert "of 40 held-out images" in result.stdout
    found = HybridClassifier.load(out)
    assert found.image_shape_ == (64, 64, 3)  # the next multiple of 8
    assert isinstance(found.denoiser_, LateConditionedDenoiser) and found.denoiser_.shrink == 8
    assert found.proposer == network and found.calibration_ is not None
    assert (found.allocation, found.top_k) == (Race(0.95, 4), 5)
    assert found.predict_proba(image_paths([data])[:3]).shape == (3, 10)


@pytest.mark.slow
def test_evaluation_behind_another_tier_1(model: Path, data: Path, network: str, tmp_path: Path) -> None:
    arguments = ("--model", model, "--proposer", network, "--trials", "2", "--out", tmp_path, "--json")
    result = invoke("evaluate", data, *arguments)
    assert result.exit_code == 0, result.output
    accuracy = {row["method"]: row["accuracy"]["value"] for row in json.loads(result.stdout)["methods"]}
    assert accuracy["tier 1"] < 0.3 < accuracy["tier 2: 2 trials"]
    refused = invoke("evaluate", data, "--model", model, "--proposer", network, "--denoiser", "diffusers:X")
    assert refused.exit_code == 2 and "tiers by name come as a pair" in refused.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--proposer", "timm:test_resnet", "--model", "digits"), "takes values of 0 to 16"),
        (("--proposer", "sklearn:GaussianNB", "--model", "cifar10"), "needs two tiers that are trained already"),
        (("--proposer", "timm:test_resnet"), "for a proposer and model"),
        (("--confidence", "2"), "confidence"),
    ],
)
def test_what_cannot_be_calibrated(data: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("calibrate", data, tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in result.output, result.output
    assert not (tmp_path / "out").exists()


def test_out_is_looked_at_first(data: Path, model: Path) -> None:
    result = invoke("calibrate", data, model, "--model", "nowhere")
    assert result.exit_code == 2 and "exists and is not empty" in result.output


def test_the_images_that_a_model_was_trained_on(model: Path) -> None:
    assert images_trained_on(model) is None  # `fit` keeps no list
    seen = images_trained_on("cifar10")
    assert seen is not None and Image.new("RGB", (32, 32), "red") not in seen


def test_labels_and_prompts_of_the_model_stay(model: Path, network: str) -> None:
    clf = behind(network, model, ["3", "8"])
    assert clf.classes_.tolist() == [3, 8] and clf.image_shape_ == (64, 64, 3)
