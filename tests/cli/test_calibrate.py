"""`hybridclf calibrate`, and a model's tier 2 behind another tier 1."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace as Namespace

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
from hybridclf.cli import app, classifier
from hybridclf.cli.classifier import behind, images_trained_on, tiers_trained_on
from hybridclf.data.image_files import image_paths
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.sample import TrainedOn
from hybridclf.models import LateConditionedDenoiser
from hybridclf.pair_training.start_from import Start


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
    for i in range(300, 370):
        path = folder / str(load_digits().target[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photographs[i]).resize((64, 64), Image.Resampling.NEAREST).save(path)
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
    assert (more["n_images"], more["model"], more["guarantee"]) == (70, str(tmp_path / "more"), None)
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
        (("--proposer", "timm:test_resnet", "--model", "digits"), "no model of photographs"),
        (("--proposer", "sklearn:GaussianNB", "--model", "cifar10"), "is a classifier that is not trained"),
        (("--proposer", "timm:test_resnet"), "give --model NAME or DIR"),
        (("--proposer", "timm:test_resnet/../own.pth", "--model", "cifar10"), "leads out of that folder"),
        (("--delta", "0.1"), "give that, too"),
        (("--max-loss", "1"), "--max-loss must be"),
        (("--top-k", "1"), "--top-k"),
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


def test_images_calibrated_on_are_left_out_later(model: Path, data: Path, tmp_path: Path) -> None:
    """Of a model whose training is not known (`fit` keeps no list), by the size that it had, whatever comes after."""
    assert images_trained_on(model) == TrainedOn(frozenset(), (8, 8, 3))
    assert len(images_trained_on("cifar10").known) > 40_000
    out = tmp_path / "out"
    invoke("calibrate", data, out, "--model", model, "--images", "40", "--max-trials", "1")
    seen = images_trained_on(out)
    assert len(seen.known) == 40 and seen.shape == (8, 8, 3)
    assert not tiers_trained_on(out).known  # its fusion alone saw them
    assert len(images_trained_on("cifar10").known) - len(tiers_trained_on("cifar10").known) == 2000
    again = invoke("calibrate", data, tmp_path / "again", "--model", out, "--max-trials", "1", "--json")
    report = json.loads(again.stdout)
    assert report["n_images"] == 30 and "40 images" in report["notes"][0] and "calibrated on them" in report["notes"][0]
    assert len(images_trained_on(tmp_path / "again").known) == 70
    with pytest.raises(InvalidInputError, match="or was calibrated or tuned since"):
        Start.of(out, HybridClassifier.load(out).classes_.tolist(), 8)
    none = invoke("calibrate", data, tmp_path / "none", "--model", tmp_path / "again")
    assert none.exit_code == 2 and "calibrated on all of these images" in none.output
    assert not (tmp_path / "none").exists()


def test_a_copy_is_on_one_side(model: Path, data: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice"
    shutil.copytree(data, twice)
    for path in list(twice.rglob("*.png")):
        shutil.copy(path, path.with_name(f"{path.stem} again.png"))
    result = invoke("calibrate", twice, tmp_path / "out", "--model", model, "--max-trials", "1", "--json")
    worth = json.loads(result.stdout)["worth"]
    assert (worth["n_images"], worth["n_groups"]) == (140, 70)


def test_where_tier_2_stays_off_there_is_no_bound_and_the_command_says_so(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """Of 40 images, a third are too few to show that re-ranking pays."""
    arguments = ("--model", model, "--images", "40", "--max-loss", "0.5")
    result = invoke("calibrate", data, tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "There is no bound: tier 2 is asked about none of the images that it would be tested on." in result.stdout
    found = HybridClassifier.load(tmp_path / "out")
    assert found.guarantee_ is None and not found.fusion_.pays
    again = invoke("calibrate", data, tmp_path / "again", *arguments, "--json")
    report = json.loads(again.stdout)
    assert report["guarantee"] is None and report["asks_tier_2"] is False


def test_photographs_are_averaged_down_for_tiers_of_any_size(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every other command: more of them are held in memory, and are what is answered later."""
    for label in "38":
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (300, 200)).save(tmp_path / "data" / label / "0.png")
    clf = HybridClassifier.load(model)
    clf.image_shape_, clf.proposer_, clf.denoiser_ = None, Namespace(feature_side=8), Namespace(resolution=20)
    monkeypatch.setattr(classifier, "choose_classifier", lambda *_, **__: clf)

    def calibrate(_: HybridClassifier, X: list[Image.Image], *__: object, **___: object) -> None:
        raise InvalidInputError(f"sizes: {[image.size for image in X]}")

    monkeypatch.setattr(HybridClassifier, "calibrate", calibrate)
    result = invoke("calibrate", tmp_path / "data", tmp_path / "out", "--model", model)
    assert "sizes: [(100, 67), (100, 67)]" in result.output


def test_behind_a_tier_1_the_same_images_give_the_same_answers(model: Path, data: Path, network: str) -> None:
    """Also if the model was fitted without a seed: an evaluation that goes on has to find its own recording."""
    first, second = (behind(network, model, data, ["3", "8"]) for _ in range(2))
    assert first.classes_.tolist() == [3, 8] and first._seed == second._seed


def test_images_are_as_large_as_tier_1_takes_them_if_they_have_the_pixels(
    model: Path, network: str, photographs: np.ndarray, tmp_path: Path
) -> None:
    for size, side in ((8, 8), (40, 40), (64, 64), (500, 64)):
        folder = tmp_path / str(size)
        for label in "38":
            (folder / label).mkdir(parents=True)
            Image.fromarray(photographs[0]).resize((size, size)).save(folder / label / "0.png")
        assert behind(network, model, folder).image_shape_ == (side, side, 3)


@pytest.mark.slow
def test_a_checkpoint_and_its_names_are_found_from_elsewhere(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), "own.pth")
    Path("names.txt").write_text("".join(f"{9 - i}\n" for i in range(10)))
    spec = "timm:test_resnet/own.pth?label_names=names.txt"
    result = invoke("calibrate", data, "out", "--model", model, "--proposer", spec, "--images", "40")
    assert result.exit_code == 0, result.output
    paths = image_paths([data])[:5]
    expected = HybridClassifier.load("out").predict_proba(paths)
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("".join(f"{i}\n" for i in range(10)))  # another file of that name
    np.testing.assert_array_equal(HybridClassifier.load("here/out").predict_proba(paths), expected)
