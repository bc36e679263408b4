"""Tuning a text-to-image model: it learns, is saved as a few files, goes on when interrupted, and does no harm."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from hybridclf import FixedTrials, HybridClassifier, InvalidInputError, InvalidTypeError, Reranker, TrainingError, tune
from hybridclf.cli import app
from hybridclf.cli.tune import _classifier
from hybridclf.pair_training import run as training_run
from hybridclf.training.trainer import Trainer
from hybridclf.tuning.split import Split, split_images
from hybridclf.tuning.tune import with_denoiser
from tests.adapters.tiny_pair import specs_of

LABELS = ["dark", "bright", "striped"]


def picture(label: str, seed: int) -> Image.Image:
    """A picture of 32 pixels of a kind, with some noise."""
    x = np.random.default_rng(seed).integers(0, 40, (32, 32, 3))
    x = x + {"dark": 10, "bright": 200, "striped": 180 * (np.arange(32) % 8 < 4)[:, None]}[label]
    return Image.fromarray(x.astype(np.uint8))


def pictures(n: int, first_seed: int = 0) -> tuple[list[Image.Image], np.ndarray]:
    """n labelled pictures of each kind."""
    y = np.repeat(LABELS, n)
    return [picture(label, first_seed + i) for i, label in enumerate(y)], y


@pytest.fixture(scope="module")
def clf(text_pair: Path) -> HybridClassifier:
    """A tiny CLIP and a tiny Stable Diffusion with random weights."""
    return HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(4), random_state=0).fit(None, LABELS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps of six images, a check every ten on few terms, a checkpoint with every one."""
    make_quick(monkeypatch)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.tuning.tune.BATCH_SIZE", 6)
    monkeypatch.setattr(training_run, "LOG_EVERY", 10)
    monkeypatch.setattr(training_run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 20)
    monkeypatch.setattr("hybridclf.tuning.tune.CHECKED", 24)
    monkeypatch.setattr("hybridclf.tuning.objective.ROUNDS", 1)
    monkeypatch.setattr("hybridclf.tuning.result.TRIALS", 2)


SHORT: dict[str, Any] = {"minutes": 1, "validation_fraction": 0.25}
PAIRS = np.arange(24) // 2
"""Groups of two of eight pictures of each kind."""

LORA: dict[str, Any] = {"rank": 4}
BOTH: dict[str, Any] = {"rank": 2, "words": True}
WORDS: dict[str, Any] = {"rank": 0, "words": True}


@pytest.fixture(scope="module")
def tuned(
    clf: HybridClassifier, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any]], tuple[HybridClassifier, Path]]:
    """`tuned(options)`: a classifier that was tuned with them and its folder, not to be changed."""
    done: dict[str, tuple[HybridClassifier, Path]] = {}

    def of(options: dict[str, Any]) -> tuple[HybridClassifier, Path]:
        if str(options) not in done:
            out = tmp_path_factory.mktemp("tuned") / "out"
            with pytest.MonkeyPatch.context() as monkeypatch:
                make_quick(monkeypatch)
                done[str(options)] = tune(clf, *pictures(8), out=out, **SHORT, **options), out
        return done[str(options)]

    return of


def errors(denoiser: Any, images: list[Image.Image], labels: list[str]) -> np.ndarray:
    """Errors `[n, 4, L]` of images under labels."""
    stage = Reranker(denoiser, allocation=FixedTrials(4), random_state=0)
    return np.stack([result.evidence for result in stage.rerank(images, [labels] * len(images))])


@pytest.mark.parametrize("options", [BOTH, *(pytest.param(one, marks=pytest.mark.slow) for one in (LORA, WORDS))])
def test_it_learns_and_is_saved_with_a_few_files(
    clf: HybridClassifier, tmp_path: Path, options: dict[str, Any], tuned: Callable[..., Any]
) -> None:
    X, _ = pictures(1)
    before = errors(clf.denoiser_, X, LABELS)
    model, out = tuned(options)
    np.testing.assert_array_equal(errors(clf.denoiser_, X, LABELS), before)  # the classifier is as it was
    log = json.loads((out / "training" / "log.json").read_text())
    checked = [entry["held_out"] for entry in log["losses"]["tuned"]]
    assert min(checked) < log["before"]["tuned"]
    files = {path.name for path in (out / "tuned").iterdir()}
    assert files == {*(["pytorch_lora_weights.safetensors"] * bool(options["rank"]))} | {
        *(["words.safetensors"] * options.get("words", False))
    }
    assert not [*(out / "training").glob("*.safetensors")]
    shutil.move(out, tmp_path / "elsewhere")  # it refers to itself by no path from the root
    moved = HybridClassifier.load(tmp_path / "elsewhere")
    new, _ = pictures(2, first_seed=1000)
    np.testing.assert_array_equal(moved.predict_proba(new), model.predict_proba(new))
    assert not np.array_equal(errors(moved.denoiser_, new, LABELS), errors(clf.denoiser_, new, LABELS))
    assert model.worth_ is not None
    shutil.move(tmp_path / "elsewhere", out)  # where others look for it


@pytest.mark.slow
def test_what_is_saved_is_an_ordinary_lora_of_diffusers(tuned: Callable[..., Any], text_pair: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from hybridclf_adapters.diffusers import from_pipeline

    X, _ = pictures(2)
    model, out = tuned(LORA)
    pipe = StableDiffusionPipeline.from_pretrained(text_pair / "sd", safety_checker=None, requires_safety_checker=False)
    pipe.load_lora_weights(out / "tuned")
    pipe.fuse_lora()
    expected = errors(from_pipeline(pipe), X[:4], LABELS)
    np.testing.assert_allclose(errors(model.denoiser_, X[:4], LABELS), expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_interrupted_and_resumed_equals_uninterrupted(
    clf: HybridClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: Callable[..., Any]
) -> None:
    X, y = pictures(8)
    options = SHORT | BOTH
    _, whole = tuned(BOTH)
    advance = Trainer._advance

    def advance_or_stop(trainer: Trainer) -> Tensor:
        if trainer.step == 13:
            raise KeyboardInterrupt
        return advance(trainer)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "_advance", advance_or_stop)
        tune(clf, X, y, out=tmp_path / "parts", **options)
    with pytest.raises(TrainingError, match="rank is 2, not 3"):
        tune(clf, X, y, out=tmp_path / "parts", resume=True, **options | {"rank": 3})
    with pytest.raises(TrainingError, match="has other settings: images"):
        tune(clf, X[:-1], y[:-1], out=tmp_path / "parts", resume=True, **options)
    tune(clf, X, y, out=tmp_path / "parts", resume=True, **options)
    for name in ("pytorch_lora_weights.safetensors", "words.safetensors"):
        assert (whole / "tuned" / name).read_bytes() == (tmp_path / "parts" / "tuned" / name).read_bytes()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`begun(clf, X, y, out=…, …)`: a tuning that is interrupted before its first step; returns its log."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def of(*args: Any, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr("hybridclf.tuning.tune._train", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(*args, **SHORT, **options)
        log: dict[str, Any] = json.loads((options["out"] / "training" / "log.json").read_text())
        return log

    return of


def test_it_is_not_resumed_with_other_groups_prompts_or_another_objective(
    clf: HybridClassifier, tmp_path: Path, begun: Callable[..., dict[str, Any]]
) -> None:
    given = {"X": pictures(8)[0], "y": pictures(8)[1], "out": tmp_path / "out"}
    begun(clf, groups=PAIRS, **given)
    begun(clf, groups=PAIRS, resume=True, **given)
    behind_another = copy.copy(clf)
    behind_another.proposer = "timm:another"
    for other, groups, message in (
        (clf, None, "split is '"),
        (copy.copy(clf).set_params(prompts=("a {} wall",)), PAIRS, r"prompts is None, not \['a {} wall'\]"),
        (copy.copy(clf).set_params(objective="l1"), PAIRS, "objective is 'l2', not 'l1'"),
        (behind_another, PAIRS, "proposer is '"),
    ):
        with pytest.raises(TrainingError, match=f"has other settings: {message}"):
            tune(other, **given, groups=groups, resume=True, **SHORT)


@pytest.mark.parametrize("groups, n_images, n_groups", [(PAIRS, 4, 2), (np.arange(24) % 8, 3, 1)])
def test_the_fusion_and_the_intervals_allow_for_groups(
    clf: HybridClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: np.ndarray,
    n_images: int,
    n_groups: int,
) -> None:
    def untrained(*args: Any) -> dict[str, str]:
        args[4].rmdir()  # for new parameters
        return {}

    monkeypatch.setattr("hybridclf.tuning.tune._train", untrained)
    monkeypatch.setattr("hybridclf.tuning.result.TRIALS", 2)
    model = tune(clf, *pictures(8), out=tmp_path / "out", groups=groups, **SHORT)
    assert model.worth_ is not None and (model.worth_.n_images, model.worth_.n_groups) == (n_images, n_groups)
    found = json.loads((tmp_path / "out" / "training" / "log.json").read_text())["validation"]
    assert found["accuracy"]["tier 1"]["low"] == 0 and found["accuracy"]["tier 1"]["high"] == 1  # of a single group


def test_what_tier_1_was_trained_on_is_trained_on(
    clf: HybridClassifier, tmp_path: Path, begun: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {*range(6), *range(8, 14), *range(16, 22)}
    found: list[Split] = []

    def split_and_noted(*args: Any) -> Split:
        found.append(split_images(*args))
        return found[-1]

    monkeypatch.setattr("hybridclf.tuning.tune.split_images", split_and_noted)
    noise = [Image.fromarray(p) for p in np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)]
    begun(clf, noise, pictures(8)[1], out=tmp_path / "out", seen=np.isin(np.arange(24), list(known)))
    assert known <= set(found[0].training.tolist()) and len(found[0].fitted) == 3
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        tune(clf, *pictures(8), out=tmp_path / "other", seen=[True], **SHORT)


@pytest.mark.usefixtures("quick")
def test_captions_are_told_apart(clf: HybridClassifier, tmp_path: Path) -> None:
    X, y = pictures(8)
    captions = [[f"a {label} wall", *(f"a {other} wall" for other in LABELS if other != label)] for label in y]
    tuned = tune(clf, X, captions=captions, out=tmp_path / "out", minutes=1, validation_fraction=0.25)
    assert tuned.calibration_ is None
    (scores,) = tuned.score_captions(X[:1], captions[:1], trials=2)
    assert np.isfinite(scores.gain).all()


def test_rivals_are_those_that_tier_1_confuses() -> None:
    from hybridclf.tuning.examples import TuningExamples

    log_prior = np.log([0.1, 0.6, 0.3])
    examples = TuningExamples.of(torch.zeros(2, 1), [[5, 1, 2], [4, 3]], [log_prior, np.log([0.5, 0.5])])
    rng = torch.Generator().manual_seed(0)
    drawn = examples.draw_labels(torch.tensor([0, 1]).repeat(3000), rng)
    assert set(map(tuple, drawn.tolist())) == {(5, 1), (5, 2), (4, 3)}
    first = drawn[drawn[:, 0] == 5, 1]
    assert (first == 1).float().mean() == pytest.approx(2 / 3, abs=0.04)  # 0.6 / (0.6 + 0.3), within five deviations


# --- what cannot be tuned ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rank": 0}, "nothing to tune"),
        ({"rank": 1000}, "rank must be at most 256"),
        ({"minutes": 0}, "minutes must be a finite number above 0"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"wrong_class_weight": -1}, "wrong_class_weight must be"),
    ],
)
def test_settings_out_of_range(clf: HybridClassifier, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tune(clf, *pictures(2), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_denoiser_of_classes_is_not_tuned(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match=r"cannot be tuned; .* hybridclf train --from"):
        tune(HybridClassifier.from_pretrained("digits"), *pictures(2), out=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_float16_by_default_is_tuned_in_bfloat16(text_pair: Path, tmp_path: Path) -> None:
    """A denoiser that names no precision is in float16 on a GPU."""
    half = HybridClassifier(*specs_of(text_pair), dtype="float16", random_state=0).fit(None, LABELS)
    model = tune(half, *pictures(8), out=tmp_path / "out", rank=2, **SHORT)
    assert "precision=bf16" in model.denoiser and model.denoiser_.dtype == torch.bfloat16
    assert half.denoiser_.dtype == torch.float16 and half.denoiser == specs_of(text_pair)[1]


def test_float16_is_refused_where_it_is_named(clf: HybridClassifier, text_pair: Path, tmp_path: Path) -> None:
    half = with_denoiser(clf, f"{specs_of(text_pair)[1]}?precision=fp16")
    with pytest.raises(InvalidInputError, match=r"float16; .*precision=bf16"):
        tune(half, *pictures(2), out=tmp_path / "out")


def test_a_tuned_model_is_not_tuned_on_top(tuned: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"has lora already.*tune the model that it was made of"):
        tune(tuned(LORA)[0], *pictures(2), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_with_another_denoiser_has_its_defaults(
    clf: HybridClassifier, text_pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = copy.copy(clf).set_params(top_k=2)
    monkeypatch.setattr("hybridclf.cli.classifier.choose_classifier", lambda *_: pair)
    tiers = {"model": "pair", "denoiser": specs_of(text_pair)[1], "device": None, "proposer": None}
    model = _classifier({**tiers, "template": "a {} wall"}, None)
    assert (model.allocation, model.top_k) == (None, None) and model.denoiser_.templates == ("a {} wall",)
    assert _classifier({**tiers, "template": None}, None).prompts == pair.prompts


def test_an_image_with_one_caption_is_refused(clf: HybridClassifier, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="image 1 has one caption; give at least two, the right one first"):
        tune(clf, pictures(2)[0][:2], captions=[["a", "b"], ["c"]], out=tmp_path / "out")


def test_a_folder_that_holds_something_is_refused(clf: HybridClassifier, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        tune(clf, *pictures(4), out=tmp_path, validation_fraction=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_tuned_model_does_not_take_another_pipeline(
    clf: HybridClassifier, tmp_path: Path, tuned: Callable[..., Any], text_pair: Path
) -> None:
    from hybridclf import SavedModelError

    other = tmp_path / "sd"
    shutil.copytree(text_pair / "sd", other)
    config = json.loads((other / "scheduler" / "scheduler_config.json").read_text())
    (other / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"prediction_type": "v_prediction"}))
    with pytest.raises(SavedModelError, match="another configuration"):
        with_denoiser(clf, f"diffusers:{other}?lora={tuned(LORA)[1]}/tuned")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def invoke() -> Callable[..., Any]:
    return lambda *args: CliRunner().invoke(app, list(map(str, args)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command_tunes_on_a_folder(invoke: Callable[..., Any], tmp_path: Path, text_pair: Path) -> None:
    for image, label, i in zip(*pictures(4), range(12), strict=True):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / label / f"{i}.png")
    proposer, denoiser = specs_of(text_pair)
    out = tmp_path / "out"
    command = ["tune", tmp_path / "data", out, "--val", "0.5", "--rank", "2"]
    assert "name what to tune" in invoke(*command).output
    done = invoke(*command, "--proposer", proposer, "--denoiser", denoiser)
    assert done.exit_code == 0, done.output
    assert "held-out images" in done.output
    assert "Tuning adds" in done.output
    named = invoke("classify", tmp_path / "data" / "dark" / "0.png", "--model", out, "--json")
    assert named.exit_code == 0, named.output
    again = invoke(*command, "--model", out, "--denoiser", denoiser)
    assert "exists and is not empty" in again.output


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_what_does_not_lower_the_held_out_loss_changes_nothing_and_the_command_says_so(
    clf: HybridClassifier,
    invoke: Callable[..., Any],
    tmp_path: Path,
    text_pair: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hybridclf.tuning.tune.LEARNING_RATE", -2e-2)  # uphill
    X, y = pictures(4)
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / label / f"{i}.png")
    proposer, denoiser = specs_of(text_pair)
    tiers = ("--proposer", proposer, "--denoiser", denoiser)
    done = invoke("tune", tmp_path / "data", tmp_path / "out", *tiers, "--val", "0.5")
    assert "Nothing lowered the held-out loss" in done.output
    log = json.loads((tmp_path / "out" / "training" / "log.json").read_text())
    assert min(entry["held_out"] for entry in log["losses"]["tuned"]) > log["before"]["tuned"]
    gains = log["validation"]["gain"]
    assert gains["tier 2"]["value"] == gains["hybrid"]["value"] == 0  # calibrated alike, before and after
    model = HybridClassifier.load(tmp_path / "out")
    np.testing.assert_array_equal(errors(model.denoiser_, X[:4], LABELS), errors(clf.denoiser_, X[:4], LABELS))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command_tunes_on_captions(invoke: Callable[..., Any], tmp_path: Path, text_pair: Path) -> None:
    lines = []
    for image, label, i in zip(*pictures(4), range(12), strict=True):
        image.save(tmp_path / f"{i}.png")
        wrong = [f"a {other} wall" for other in LABELS if other != label]
        lines.append(json.dumps({"image": f"{i}.png", "caption": f"a {label} wall", "wrong": wrong}))
    lines += ['{"image": "none.png", "caption": "a", "wrong": ["b"]}', "not json"]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    proposer, denoiser = specs_of(text_pair)
    tiers = ("--proposer", proposer, "--denoiser", denoiser)
    done = invoke("tune", tmp_path / "captions.jsonl", tmp_path / "out", *tiers, "--val", "0.5", "--json")
    assert done.exit_code == 0, done.output
    assert "left out: line 13" in done.output and "left out: line 14" in done.output
    found = json.loads(done.stdout)
    assert found["validation"]["n"] == 4 and {*found["validation"]["gain"]} == {"tier 2"}  # the striped look alike
