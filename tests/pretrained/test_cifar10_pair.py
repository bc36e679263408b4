"""The embedded pair for natural images: there without a network, as good as its card says, an ordinary timm model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_sample_image
from typer.testing import CliRunner

import hybridclf_adapters.timm  # noqa: F401, registers the embedded models
from hybridclf import HybridClassifier
from hybridclf.cli import app
from hybridclf.data.datasets import load_labelled
from hybridclf.pair_training.start_from import known_images, trained_on
from hybridclf.pretrained.catalog import pretrained_folder

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("cifar10")


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Pieces of scikit-learn's two photographs, 32 pixels a side."""
    photos = [load_sample_image(name)[::2, ::2] for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + 32, x : x + 32] for photo in photos for y in (20, 60, 100) for x in (20, 90, 200)])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files of several kinds and sizes."""
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(tmp_path / f"{name}.png")
    Image.new("L", (90, 300), 120).save(tmp_path / "grey.jpg")
    return tmp_path


def test_photographs_are_classified_without_a_network(files: Path) -> None:
    """All tests run offline, with no proxy that answers: see tests/conftest.py."""
    done = CliRunner().invoke(app, ["classify", "--json", str(files)])
    assert done.exit_code == 0, done.output
    check(done.stdout)


@pytest.mark.slow
def test_photographs_are_classified_by_the_command_as_it_is(files: Path) -> None:
    """In a process of its own."""
    poisoned = os.environ | {v: "http://127.0.0.1:9" for v in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    code = "from hybridclf.cli import app; app()"
    command = [sys.executable, "-c", code, "classify", "--json", str(files)]
    done = subprocess.run(command, env=poisoned | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check(done.stdout)


def check(lines: str) -> None:
    answers = [json.loads(line) for line in lines.splitlines()]
    assert [Path(a["path"]).name for a in answers] == ["china.png", "flower.png", "grey.jpg"]
    for answer in answers:
        assert answer["label"] in (*CLASSES, None) and answer["error"] is None
        assert (answer["label"] is None) is answer["rejected"] is (answer["novelty"] <= 0.01)
        assert 0 < sum(share["probability"] for share in answer["posterior"]) <= 1 + 1e-9


def test_an_answer_does_not_depend_on_its_companions(clf: HybridClassifier, photographs: np.ndarray) -> None:
    together = clf.predict_proba(photographs)
    alone = np.concatenate([clf.predict_proba(photographs[i : i + 1]) for i in range(len(photographs))])
    np.testing.assert_allclose(together, alone, atol=1e-5)  # tier 1 is not padded


def test_the_folder_holds_halves_and_little_else() -> None:
    files = [path for path in pretrained_folder("cifar10").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, no dict
            large = {name: w.dtype for name, w in weights.items() if w.ndim > 1}
            assert set(large.values()) == {torch.float16}, large


def test_timm_has_it(clf: HybridClassifier, photographs: np.ndarray) -> None:
    model = timm.create_model("hybridclf_cifar10", pretrained=True).eval()
    assert "hybridclf_cifar10" in timm.list_models("hybridclf_*") and model.num_classes == 10
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    transform: Any = timm.data.create_transform(**config)
    x = torch.stack([transform(Image.fromarray(photo)) for photo in photographs])
    np.testing.assert_allclose(model(x), clf.predict_log_proba(photographs), atol=1e-5)
    other = timm.create_model("hybridclf_cifar10")
    differ = [not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True) if a.ndim > 1]
    assert all(differ)


def test_it_knows_the_images_of_its_training_and_of_its_fusion(clf: HybridClassifier) -> None:
    folder = pretrained_folder("cifar10")
    known, calibration = known_images(folder), clf.calibration_
    assert calibration is not None and calibration.n_images == 2000
    assert len(known) == len(trained_on(folder)) + calibration.n_images


def test_its_figures_are_those_of_its_card(clf: HybridClassifier, shared_data: Path) -> None:
    """Within 3 points, which is twice the standard error of the difference, on the first 500 images."""
    test = load_labelled(shared_data / "cifar10-test.parquet", 32)
    images, y = test.pixels[:500], test.y[:500]
    assert list(test.classes) == clf.classes_.tolist() == CLASSES
    posterior, results = clf.decide(images)
    card = (pretrained_folder("cifar10") / "README.md").read_text(encoding="utf-8")
    found = re.search(r"tier 1 (\d+\.\d) %.*?hybrid (\d+\.\d) %.*?(\d+\.\d) evaluations", card, re.DOTALL)
    assert found is not None
    tier_1, hybrid, evaluations = map(float, found.groups())
    assert 100 * (clf.classes_[posterior.argmax(axis=1)] == clf.classes_[y]).mean() == pytest.approx(hybrid, abs=3)
    assert 100 * (clf.proposer_.predict(images) == clf.classes_[y]).mean() == pytest.approx(tier_1, abs=3)
    assert np.mean([r.evaluations for r in results]) == pytest.approx(evaluations, rel=0.25)
