"""Training a pair by the command: it learns, is saved as a whole, and goes on exactly where it was interrupted."""

import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from typer.testing import CliRunner

from hybridclf import HybridClassifier, __version__, train_pair
from hybridclf.cli import app
from hybridclf.cli.classifier import images_trained_on
from hybridclf.data.datasets import load_labelled
from hybridclf.data.holding_out import digests, unpack
from hybridclf.data.image_files import open_image
from hybridclf.errors import InvalidInputError, SavedModelError, TrainingError
from hybridclf.metrics import accuracy
from hybridclf.pair_training import networks, recipe, time_budget
from hybridclf.pair_training import run as training_run
from hybridclf.pair_training.finish import RACE, TOP_K
from hybridclf.pair_training.networks import new_unet
from hybridclf.pair_training.recipe import denoiser_job
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.train_pair import trained_on
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.pretrained.catalog import model_folder
from hybridclf.training.trainer import Trainer

COLOURS = {"blue": (60, 60, 220), "green": (60, 220, 60), "red": (220, 60, 60)}
MINUTES = 1.5
"""48 steps of the proposer and 72 of the denoiser, see `small`."""


def blobs(n: int, colour: tuple[int, int, int], seed: int) -> list[Image.Image]:
    """Pictures of 8 x 8 pixels: a square of that colour somewhere on noise."""
    rng, pictures = np.random.default_rng(seed), []
    for _ in range(n):
        picture = rng.integers(0, 90, (8, 8, 3))
        x, y = rng.integers(1, 4, 2)
        picture[y : y + 4, x : x + 4] = np.array(colour) - rng.integers(0, 60, 3)
        pictures.append(Image.fromarray(picture.astype(np.uint8)))
    return pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blobs")
    for seed, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir()
        for i, picture in enumerate(blobs(40, colour, seed)):
            picture.save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _small(small: None) -> None:
    """For every test here."""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a trained model, and what the command printed."""
    out = tmp_path_factory.mktemp("pair") / "my model"
    return out, invoke(data, out, "--minutes", str(MINUTES), "--image-size", "8", "--val", "0.2")


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_it_learns(trained: tuple[Path, Result]) -> None:
    out, result = trained
    assert result.exit_code == 0, result.output
    found = json.loads((out / "training" / "log.json").read_text())["validation"]
    assert found["n"] == 12  # the half that the fusion was not fitted on; chance is 1/3
    assert found["tier_1"] > 0.9 and found["tier_2"] > 0.8 and found["hybrid"] > 0.9
    clf = HybridClassifier.load(out)
    assert clf.fusion_.calibrated and clf.classes_.tolist() == sorted(COLOURS) and clf.denoiser_.mirror
    assert (clf.top_k, clf.allocation) == (TOP_K, RACE)
    fresh = [picture for seed, colour in enumerate(COLOURS.values(), 10) for picture in blobs(20, colour, seed)]
    assert (clf.predict(fresh) == np.repeat(sorted(COLOURS), 20)).mean() > 0.9


def test_the_command_says_what_it_did(trained: tuple[Path, Result], data: Path) -> None:
    out, result = trained
    for text in ("tier 1 alone", "tier 2 alone, 32 trials", "hybrid, ", f"Written: {out}"):
        assert text in result.stdout
    worth = json.loads((out / "training" / "log.json").read_text())["worth"]
    assert worth["sentence"] in result.stdout and f"of {worth['n_images']} held-out images" in worth["sentence"]
    assert {"pays", "fixed", "broken", "log_loss_gain"} <= set(worth)
    for text in ("read images", "train proposer", "train denoiser", "image/s", "loss="):
        assert text in result.stderr
    log = json.loads((out / "training" / "log.json").read_text())
    assert log["settings"] | {"minutes": MINUTES, "image_size": 8, "validation_fraction": 0.2} == log["settings"]
    assert log["n_steps"] == {"proposer": 72, "denoiser": 48}
    for part, n_steps in log["n_steps"].items():
        entries = log["losses"][part]
        assert [entry["step"] for entry in entries] == [*range(10, n_steps, 10), n_steps]
        assert entries[-1]["held_out"] < entries[0]["held_out"]
        assert all(entry["images_per_second"] > 0 for entry in entries)
    assert open_image(out / "training" / "loss.png").width > 1000
    assert {path.name for path in (out / "training").iterdir()} == {"log.json", "loss.png"}  # no checkpoint is left


def test_the_folder_may_be_moved_and_classifies_files(trained: tuple[Path, Result], data: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(trained[0], tmp_path / "moved")
    files = sorted(data.glob("red/1*.png"))
    arguments = ["classify", "--json", "--model", str(moved), *map(str, files)]
    lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    expected = HybridClassifier.load(trained[0]).predict([open_image(file) for file in files])
    assert [json.loads(line)["label"] for line in lines] == expected.tolist()
    shutil.rmtree(moved / "proposer")
    with pytest.raises(SavedModelError, match="incomplete: it has no proposer"):
        HybridClassifier.load(moved)


def test_the_first_images_for_the_fusion_show_every_class(data: Path) -> None:
    settings = PairSettings(image_size=8, validation_fraction=0.5)
    split = TrainingData.of(load_labelled(data, 8), torch.device("cpu"), True, settings)
    shown = split.held_out_y[split.fit_on]
    assert sorted(shown[:3].tolist()) == [0, 1, 2] and len(shown) == len(set(split.fit_on.tolist())) == 30
    assert not set(split.fit_on) & set(split.measure_on)


def test_a_loaded_pair_can_be_saved_again(trained: tuple[Path, Result], data: Path, tmp_path: Path) -> None:
    clf = HybridClassifier.load(trained[0])
    clf.save(tmp_path / "again")
    X = load_labelled(data, 8).pixels[::7]
    again = HybridClassifier.load(tmp_path / "again")
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    # in bfloat16 where that is native, unless another type is asked for
    exact = HybridClassifier.load(tmp_path / "again", dtype="float32")
    assert (again.denoiser_.mixed, exact.denoiser_.mixed) == (True, False)


MORE = ("--minutes", "0.3", "--image-size", "8", "--val", "0.2")


@pytest.fixture(scope="module")
def more(trained: tuple[Path, Result], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that started from the trained pair."""
    out = tmp_path_factory.mktemp("more") / "out"
    result = invoke(data, out, "--from", trained[0], *MORE)
    assert result.exit_code == 0, result.output
    return out


def test_a_training_may_start_from_a_trained_pair(trained: tuple[Path, Result], more: Path) -> None:
    before, after = (json.loads((folder / "training" / "log.json").read_text()) for folder in (trained[0], more))
    assert after["settings"]["start_from"] == str(trained[0])
    for part in before["losses"]:
        first, last, new = (log["losses"][part][i]["loss"] for log, i in ((before, 0), (before, -1), (after, 0)))
        assert new < (first + last) / 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no embedded model 'nowhere'"),
        ("digits", "it is no result of hybridclf train"),
        (".", "no pair to start from"),
    ],
)
def test_what_a_training_cannot_start_from(source: str, message: str, data: Path, tmp_path: Path) -> None:
    result = invoke(data, tmp_path / "out", "--from", source, "--image-size", "8")
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_training_may_start_from_a_pair_for_other_classes(
    trained: tuple[Path, Result], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts better than from nothing; interrupted and resumed without that pair, it comes out the same."""
    other, source = shutil.copytree(data, tmp_path / "other"), shutil.copytree(trained[0], tmp_path / "source")
    (other / "red").rename(other / "ruby")
    result = invoke(other, tmp_path / "out", "--from", source, *MORE)
    assert result.exit_code == 0, result.output
    assert f"tier 2 starts from that of {source}, its weights by class are new" in result.stderr
    before, after = (json.loads((f / "training" / "log.json").read_text()) for f in (source, tmp_path / "out"))
    for part in ("proposer", "denoiser"):
        assert after["before"][part] < before["before"][part]
    assert HybridClassifier.load(tmp_path / "out").classes_.tolist() == ["blue", "green", "ruby"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        invoke(other, tmp_path / "again", *MORE, "--from", source)
    shutil.rmtree(source)
    resumed = invoke(other, tmp_path / "again", "--resume")
    for said in (result, resumed):
        assert "tier 1 is a small network that starts from an earlier pair's" in said.stderr
    for part in ("denoiser.safetensors", "proposer/model.safetensors"):
        assert (tmp_path / "again" / part).read_bytes() == (tmp_path / "out" / part).read_bytes()


def test_a_training_does_not_start_from_a_pair_for_another_size(
    trained: tuple[Path, Result], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"no pair to start from: its images are \[3, 8, 8\]; .* of 32 pixels \(image_size, --image-size\)",
    ):
        train_pair(data, tmp_path / "out", image_size=32, start_from=trained[0])
    assert not (tmp_path / "out").exists()


def task_of(source: Path | str, out: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> TrainingData:
    """What would be trained, of a training that is interrupted before it begins."""
    seen: list[TrainingData] = []

    def stop(run: Any, task: TrainingData, *_: Any) -> None:
        seen.append(task)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hybridclf.pair_training.train_pair._train", stop)
        with pytest.raises(KeyboardInterrupt):
            train_pair(source, out, **settings)
    return seen[0]


def test_what_a_pair_was_trained_on_is_not_held_out(trained: tuple[Path, Result], data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"image_size": 8, "start_from": trained[0], "validation_fraction": 0.3}
    with pytest.raises(
        InvalidInputError, match=r"only 24 can be .* smaller share \(validation_fraction, --val\): 0\.2$"
    ):
        train_pair(data, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_images_that_its_fusion_was_fitted_on_are_left_out_of_evaluations(trained: tuple[Path, Result]) -> None:
    """All 24 that were held out: tier 2 is off, and the result was measured on half of those for the temperature."""
    assert not HybridClassifier.load(trained[0]).fusion_.pays
    known = images_trained_on(trained[0]).known
    assert known > set(trained_on(trained[0]).tolist()) and len(known) == 96 + 24


def renumbered(data: Path) -> None:
    """The same images under other names, and so in another order."""
    for file in sorted(data.glob("*/*.png")):
        file.rename(file.with_name(f"{(7 * int(file.stem) + 3) % 40:03}-.png"))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "none": lambda data: None,
    "one image more, the first": lambda data: blobs(1, COLOURS["red"], 9)[0].save(data / "blue" / "!.png"),
    "one image fewer": lambda data: (data / "green" / "0.png").unlink(),
    "a class with half its images": lambda data: [(data / "green" / f"{i}.png").unlink() for i in range(0, 40, 2)],
    "other names": renumbered,
    "a copy of each": lambda data: [shutil.copy(p, p.with_name(f"copy {p.name}")) for p in [*data.glob("*/*.png")]],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_pair_was_trained_on_stays_in_training(
    change: str, seed: int, trained: tuple[Path, Result], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = shutil.copytree(data, tmp_path / "changed")
    CHANGES[change](changed)
    settings: dict[str, Any] = {"image_size": 8, "validation_fraction": 0.2, "start_from": trained[0], "seed": seed}
    task = task_of(changed, tmp_path / "out", monkeypatch, **settings)
    seen = trained_on(trained[0])
    assert len(seen) == 96
    out = digests(task.held_out.numpy())
    assert not np.isin(out, seen).any() and len(out) >= 18
    assert np.bincount(task.held_out_y).min() >= 2
    log = json.loads((tmp_path / "out" / "training" / "log.json").read_text())
    assert set(unpack(log["trained_on"])) == set(digests(task.pixels.numpy()))
    assert set(trained_on(tmp_path / "out")) == set(seen) | set(
        unpack(log["trained_on"])
    )  # for one that starts from it


def test_a_pair_that_does_not_say_what_it_was_trained_on(
    trained: tuple[Path, Result], data: Path, tmp_path: Path
) -> None:
    silent = shutil.copytree(trained[0], tmp_path / "silent")
    shutil.rmtree(silent / "training")
    with pytest.raises(InvalidInputError, match=r"log\.json does not say which images it was trained on"):
        train_pair(data, tmp_path / "out", image_size=8, start_from=silent)


def test_the_embedded_pair_says_what_it_was_trained_on() -> None:
    assert len(trained_on(model_folder("cifar10"))) == 45_019


def test_a_damaged_pair_to_start_from(trained: tuple[Path, Result], data: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(trained[0], tmp_path / "damaged")
    for part in ("denoiser.safetensors", "proposer/model.safetensors"):
        (damaged / part).write_bytes((damaged / part).read_bytes()[:1000])
        with pytest.raises(InvalidInputError, match="damaged is no pair to start from"):
            train_pair(data, tmp_path / "out", image_size=8, validation_fraction=0.2, start_from=damaged)


def test_a_training_that_started_from_a_pair_needs_it_no_more(
    trained: tuple[Path, Result], more: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before any step of it, and resumed, it comes out the same, byte for byte, by that pair's network."""
    monkeypatch.setattr(networks, "DEPTH", {"cpu": 2})  # of new ones
    source = shutil.copytree(trained[0], tmp_path / "source")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        invoke(data, tmp_path / "again", *MORE, "--from", source)
    shutil.rmtree(source)
    assert invoke(data, tmp_path / "again", "--resume").exit_code == 0
    for part in ("denoiser.safetensors", "proposer/model.safetensors"):
        assert (tmp_path / "again" / part).read_bytes() == (more / part).read_bytes()
    assert HybridClassifier.load(tmp_path / "again").denoiser_.network.config["depth"] == 1


def test_too_few_minutes_are_refused_before_a_step(data: Path, tmp_path: Path) -> None:
    result = invoke(data, tmp_path / "out", "--minutes", "0.001", "--image-size", "8")
    assert result.exit_code == 2 and "0.001 minutes are too few for anything: preparing took" in result.stderr
    assert "minutes are needed here" in result.stderr and "train proposer" not in result.stderr
    assert not (tmp_path / "out").exists()


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(
    trained: tuple[Path, Result], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C in each training: the weights, the fusion and all else come out the same, byte for byte."""
    advance, countdown = Trainer._advance, [13, 25]

    def advance_or_stop(self: Trainer) -> Tensor:
        if countdown and self.step == countdown[0]:
            countdown.pop(0)
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Trainer, "_advance", advance_or_stop)
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    monkeypatch.chdir(tmp_path)

    def spent() -> dict[str, float]:
        found: dict[str, float] = json.loads((tmp_path / "out" / "training" / "log.json").read_text())["seconds"]
        return found

    first = invoke(data, "out", "--minutes", MINUTES, "--image-size", "8", "--val", "0.2")
    assert first.exit_code not in (0, 2) and not (tmp_path / "out" / "model.json").exists()
    before = spent()
    assert before.keys() == {"reading", "tier_1"}
    assert invoke(data, "out", "--resume").exit_code == first.exit_code  # interrupted once more
    assert spent()["tier_1"] > before["tier_1"]
    done = invoke(data, "out", "--resume", "--image-size", "8")
    assert done.exit_code == 0, done.output
    assert f"Going on with the training in {tmp_path / 'out'}; at its start: " in done.stderr
    for name in ("model.json", "denoiser.safetensors", "proposer/model.safetensors", "proposer/config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (trained[0] / name).read_bytes()
    again = invoke(data, tmp_path / "out", "--resume")
    assert again.exit_code == 2 and "is finished" in again.stderr


@pytest.fixture(scope="module")
def not_begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was interrupted before its first step; not to be changed."""
    out = tmp_path_factory.mktemp("unfinished") / "out"

    def stop(self: Trainer) -> Tensor:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_advance", stop)
        train_pair(data, out, minutes=0.1, image_size=8)
    return out


@pytest.fixture
def unfinished(not_begun: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(not_begun, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "2"], "minutes is 0.1, not 2.0"),
        (["--image-size", "16"], "image_size is 8, not 16"),
        (["--val", "0.5"], "validation_fraction is 0.1, not 0.5"),
        (["--wrong-class-weight", "0"], "wrong_class_weight is 1.0, not 0.0"),
    ],
)
def test_other_settings_are_not_resumed(unfinished: Path, data: Path, options: list[str], message: str) -> None:
    result = invoke(data, unfinished, "--resume", *options)
    assert result.exit_code == 2 and message in result.stderr


def test_other_images_are_not_resumed(unfinished: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    (other / "red" / "0.png").unlink()
    with pytest.raises(TrainingError, match=r"images is '[0-9a-f]{32}', not '[0-9a-f]{32}'"):
        train_pair(other, unfinished, resume=True)
    with pytest.raises(TrainingError, match="not finished; resume it"):
        train_pair(data, unfinished, image_size=8)


def test_what_ran_is_in_the_log(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part's settings as they were used and no others, the constants, the versions."""
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 2)
    train_pair(data, tmp_path / "out", minutes=0.1, image_size=8, wrong_class_weight=0)
    log = json.loads((tmp_path / "out" / "training" / "log.json").read_text())
    used = {"batch_size", "learning_rate", "weight_decay", "ema_decay", "bf16", "muon", "compiled", "micro_batch_size"}
    proposer, denoiser = log["configs"]["proposer"], log["configs"]["denoiser"]
    assert set(proposer) == used | {"label_smoothing"} and set(denoiser) == used | {"wrong_class_weight", "times"}
    assert denoiser["wrong_class_weight"] == log["settings"]["wrong_class_weight"] == 0
    assert denoiser["times"] == list(recipe.TIMES) == log["recipe"]["recipe.TIMES"]
    assert proposer["label_smoothing"] == recipe.SMOOTHING
    expected = {
        "hybridclf": __version__,
        "torch": torch.__version__,
        "losses.MAX_CANDIDATES": 10,
        "finish.TOP_K": TOP_K,
    }
    assert log["recipe"] | expected == log["recipe"]
    assert log["recipe"]["finish.RACE"]["confidence"] == RACE.confidence


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "hybridclf.pair_training.recipe.TIMES",
            (0.1, 0.9),
            r"recipe.TIMES was [0.02, 0.35], is [0.1, 0.9]; resume it",
        ),
        ("hybridclf.pair_training.recipe.SMOOTHING", 0.2, "recipe.SMOOTHING was 0.1, is 0.2"),
        ("hybridclf.pair_training.finish.TOP_K", 3, "finish.TOP_K was 5, is 3"),
        ("hybridclf.training.losses.MAX_CANDIDATES", 4, "losses.MAX_CANDIDATES was 10, is 4"),
        ("hybridclf.training.optimizer.MUON", {}, "optimizer.MUON was {'nesterov': True"),
        ("hybridclf.data.duplicates.TOLERANCE", 0.5, "duplicates.TOLERANCE was 0.08, is 0.5"),
        ("hybridclf.pair_training.provenance.__version__", "9.0", f"hybridclf was '{__version__}', is '9.0'"),
    ],
)
def test_a_training_is_not_resumed_by_other_constants(
    unfinished: Path, data: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(name, value)
    with pytest.raises(TrainingError, match=re.escape(message)):
        train_pair(data, unfinished, resume=True)


def test_a_training_whose_log_has_no_constants_is_not_resumed(unfinished: Path, data: Path) -> None:
    path = unfinished / "training" / "log.json"
    log = json.loads(path.read_text())
    del log["recipe"]
    path.write_text(json.dumps(log))
    with pytest.raises(TrainingError, match="hybridclf was None, is '"):
        train_pair(data, unfinished, resume=True)


# --- what is held out -------------------------------------------------------------------------------------------------


def copies(picture: np.ndarray) -> dict[str, Image.Image]:
    """A picture as someone's folder may have it several times, by file name."""
    image, rng = Image.fromarray(picture), np.random.default_rng(0)
    noisy = np.clip(picture + rng.normal(0, 5, picture.shape), 0, 255).astype(np.uint8)
    return {
        "a.png": image,
        "a copy.png": image,
        "b.jpg": image,
        "c.png": Image.fromarray(noisy),
        "d.png": image.resize((96, 96)),
        "e.png": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }


def test_copies_of_a_picture_are_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    china, flower = (photograph[:384, :576] for photograph in load_sample_images().images)
    for name, photograph in {"china": china, "flower": flower}.items():
        for i, (y, x) in enumerate(itertools.product(range(0, 384, 64), range(0, 576, 64))):
            (tmp_path / "data" / name / str(i)).mkdir(parents=True)
            for file, image in copies(photograph[y : y + 64, x : x + 64]).items():
                image.save(tmp_path / "data" / name / str(i) / file)
    task = task_of(tmp_path / "data", tmp_path / "out", monkeypatch, image_size=32)
    pixels = np.concatenate([task.pixels, task.held_out])
    original = load_labelled(tmp_path / "data", 32).pixels
    number = {image.tobytes(): i // 6 for i, image in enumerate(original)}
    sides = [{number[image.tobytes()] for image in part.numpy()} for part in (task.pixels, task.held_out)]
    assert len(pixels) == 648 and len(sides[0] | sides[1]) == 108
    assert len(sides[0] & sides[1]) <= 1  # a copy that noise or JPEG has changed too much to tell
    fitted, measured = (
        {number[image.tobytes()] for image in task.some_held_out(part)[0]} for part in (task.fit_on, task.measure_on)
    )
    assert len(fitted & measured) <= 1 and set(task.some_held_out(task.fit_on)[1]) == {"china", "flower"}
    shares = np.bincount(task.held_out_y) / 324
    assert (abs(shares - 0.1) < 0.02).all()


def grouped(path: Path, column: str) -> Path:
    """Parquet with tracks of eight pictures that do not look alike."""
    rows = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for i, picture in enumerate(blobs(48, colour, label)):
            file = io.BytesIO()
            picture.save(file, "PNG")
            rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": label, column: f"{name} {i % 6}"})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(("column", "options"), [("group", {}), ("track", {"group": "track"})])
def test_groups_are_on_one_side(
    column: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = grouped(tmp_path / "x.parquet", column)
    task = task_of(path, tmp_path / "out", monkeypatch, image_size=8, validation_fraction=0.3, **options)
    images = load_labelled(path, 8, group=column)
    group = {image.tobytes(): int(number) for image, number in zip(images.pixels, images.groups, strict=True)}
    kept, fitted, measured = (
        {group[image.tobytes()] for image in part}
        for part in (
            task.pixels.numpy(),
            task.some_held_out(task.fit_on)[0],
            task.some_held_out(task.measure_on)[0],
        )
    )
    assert not kept & (fitted | measured) and not fitted & measured
    assert np.bincount(task.held_out_y).tolist() == [16, 16, 16]
    assert np.bincount(task.held_out_y[task.fit_on]).tolist() == [8, 8, 8]


def test_frames_of_few_films_do_not_tell_whether_tier_2_pays(tmp_path: Path) -> None:
    """Of each class a film of eight is for the fusion, and one for the measurement."""
    path, out = grouped(tmp_path / "x.parquet", "group"), tmp_path / "out"
    train_pair(path, out, minutes=MINUTES, image_size=8, validation_fraction=0.3)
    log = json.loads((out / "training" / "log.json").read_text())
    assert (log["worth"]["n_images"], log["worth"]["n_groups"], log["worth"]["pays"]) == (24, 3, False)
    assert "24 held-out images of 3 groups do not tell whether it adds anything" in log["advice"]
    right, interval = log["validation"]["hybrid"], log["validation"]["intervals"]["hybrid"]
    assert log["validation"]["n"] == 24 and accuracy(np.arange(24) < 24 * right).low > interval["low"]


def test_a_column_of_groups_is_named_at_the_command_line(tmp_path: Path) -> None:
    path = grouped(tmp_path / "x.parquet", "track")
    result = invoke(path, tmp_path / "out", "--image-size", "8", "--group", "tracks")
    assert result.exit_code == 2 and "no column 'tracks'" in result.stderr
    rows = pq.read_table(path).set_column(2, "track", pa.array(["one"] * 144))
    pq.write_table(rows, path)
    result = invoke(path, tmp_path / "out", "--image-size", "8", "--group", "track")
    assert (
        result.exit_code == 2
        and "class '0' has 48 images in 1 group(s), of which none can be held out" in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_where_all_pictures_look_alike_only_equal_ones_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a conveyor belt: a scratch of one pixel makes the class."""
    rng = np.random.default_rng(0)
    scene = np.asarray(Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((32, 32)))
    for name, bright in {"fine": 0, "scratched": 60}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            picture = np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
            picture[tuple(rng.integers(8, 24, 2))] |= bright
            for copy in "ab":
                Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}{copy}.png")
    with pytest.warns(UserWarning, match="only equal ones are held out together"):
        task = task_of(tmp_path / "data", tmp_path / "out", monkeypatch, image_size=32)
    assert np.bincount(task.held_out_y).tolist() == [4, 4]
    assert not np.isin(digests(task.held_out.numpy()), task.digests).any()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "minutes must be a finite number above 0"),
        ({"image_size": 20}, "image_size must be 8, 16"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a finite number above 0 and below 1"),
        ({"wrong_class_weight": -1}, "wrong_class_weight must be a finite number of at least 0"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"validation_fraction": 0.99}, "none left to train on"),
    ],
)
def test_settings_out_of_range_write_nothing(
    data: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train_pair(data, tmp_path / "out", **{"image_size": 8} | settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    result = invoke(data, tmp_path)
    assert result.exit_code == 2 and "not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_images_that_cannot_be_trained_on_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = invoke(tmp_path / "data", tmp_path / "out")
    assert result.exit_code == 2 and "no subfolders" in result.stderr
    assert result.stderr.startswith("Preparing: ") and len(result.stderr.splitlines()) == 2
    assert len(invoke(tmp_path / "data", tmp_path / "out", "--quiet").stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_digits_are_small_and_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("digits", tmp_path / "out", monkeypatch)
    assert task.pixels.shape[1:] == (8, 8, 3) and not task.mirror


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (16, 1), (32, 2), (64, 4)])
def test_the_denoiser_sees_a_grid_of_patches(size: int, patch: int) -> None:
    images = load_labelled("digits", size)
    task = TrainingData.of(images, torch.device("cpu"), False, PairSettings(image_size=size, validation_fraction=0.9))
    part = denoiser_job(task, new_unet(task, 16))
    assert part.trainer.network.config["patch"] == patch
    noise = part.trainer.average(task.encode(task.pixels[:2]), torch.tensor([0.2, 0.7]), torch.arange(2), task.y[:2])
    assert noise.shape == (2, 3, size, size)


def test_it_is_deeper_where_a_gpu_trains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PairSettings(image_size=8, validation_fraction=0.9)
    task = TrainingData.of(load_labelled("digits", 8), torch.device("cpu"), False, settings)
    assert new_unet(task, 16).config["depth"] == 1
    monkeypatch.setattr(TrainingData, "device", torch.device("cuda"))
    assert new_unet(task, 16).config["depth"] == 2


def test_a_batch_never_leaves_one_image_over() -> None:
    """Which could not be batch-normalised."""
    images = load_labelled("digits", 8)
    for n in (129, 128, 3, 2):
        task = TrainingData.of(images, torch.device("cpu"), False, PairSettings(image_size=8))
        few = TrainingData(**vars(task) | {"pixels": task.pixels[:n], "y": task.y[:n]})
        size = denoiser_job(few, new_unet(few, 16)).trainer.config.batch_size
        assert 2 <= size <= 128 and n % size != 1
