"""Both tiers from adapters: a zero-shot classifier of pictures of any size, calibrated, saved, asked other labels."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from hybridclf import HybridClassifier, InvalidInputError, PairedTTest, zero_shot
from hybridclf.errors import SavedModelError
from hybridclf.fitting import recording
from hybridclf_adapters import diffusers
from hybridclf_adapters.open_clip import load as load_open_clip
from tests.adapters.tiny_diffusers import dit, save
from tests.adapters.tiny_pair import specs_of

LABELS = ["cat", "dog", "red ball"]
OTHERS = ["hen", "fox", "cat", "owl"]
QUICK: dict[str, Any] = {"allocation": PairedTTest(min_trials=2, max_trials=3), "random_state": 0}
PROMPTS = "a {}, a pet."


@pytest.fixture(scope="module", autouse=True)
def few_recorded_trials() -> Iterator[None]:
    """As many as the quick allocation uses; more only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "RECORDED_TRIALS", 4)
        yield


@pytest.fixture(scope="module")
def specs(text_pair: Path) -> tuple[str, str]:
    return specs_of(text_pair)


@pytest.fixture(scope="module")
def calibrated(specs: tuple[str, str], pictures: list[Image.Image]) -> HybridClassifier:
    """Asked about `LABELS` and calibrated on six pictures; not to be changed."""
    return HybridClassifier(*specs, prompts=PROMPTS, **QUICK).fit(None, LABELS).calibrate(pictures, LABELS * 2)


def test_spec_strings_classify_pictures_of_any_size(specs: tuple[str, str], pictures: list[Image.Image]) -> None:
    clf = HybridClassifier(*specs, top_k=2, **QUICK).fit(None, LABELS)
    assert clf.calibration_ is None
    posterior, results = clf.decide(pictures)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert all(len(r.candidates) == 2 and 4 <= r.evaluations <= 6 for r in results)
    prior = np.exp(clf.proposer_.predict_log_proba(pictures))
    never = prior.argmin(axis=1)
    np.testing.assert_allclose(posterior[np.arange(6), never], prior.min(axis=1), rtol=1e-4)
    assert set(clf.predict(pictures)) <= set(LABELS)


def test_a_few_labelled_pictures_calibrate_it(calibrated: HybridClassifier, pictures: list[Image.Image]) -> None:
    assert calibrated.calibration_ is not None and calibrated.calibration_.n_images == 6
    np.testing.assert_allclose(calibrated.predict_proba(pictures[:2]).sum(axis=1), 1)


def test_without_a_denoiser_there_is_nothing_zero_shot(specs: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="pass a denoiser"):
        HybridClassifier(specs[0]).fit(None, LABELS)


# --- what the adapters are given --------------------------------------------------------------------------------------


def test_prompts_reach_both_tiers(specs: tuple[str, str], pictures: list[Image.Image]) -> None:
    pictures = pictures[:2]
    clf = HybridClassifier(*specs, prompts=[PROMPTS], **QUICK).fit(None, LABELS)
    posterior = clf.predict_proba(pictures)
    proposer = load_open_clip(specs[0].removeprefix("open_clip:"), prompts=PROMPTS)
    denoiser = diffusers.load(specs[1].removeprefix("diffusers:"), prompts=PROMPTS)
    by_hand = HybridClassifier(proposer, denoiser, **QUICK).fit(None, LABELS)
    np.testing.assert_array_equal(posterior, by_hand.predict_proba(pictures))
    for one in ((specs[0], denoiser), (proposer, specs[1])):
        mixed = HybridClassifier(*one, prompts=PROMPTS, **QUICK).fit(None, LABELS)
        np.testing.assert_array_equal(posterior, mixed.predict_proba(pictures))
    default = HybridClassifier(*specs, **QUICK).fit(None, LABELS)
    assert abs(default.predict_proba(pictures) - posterior).max() > 1e-4


def test_prompts_that_no_tier_reads(
    specs: tuple[str, str], tmp_path: Path, frozen_clip: Any, gaussian_denoiser: Any
) -> None:
    exact = gaussian_denoiser({label: np.zeros(3) for label in LABELS})
    by_class = f"diffusers:{save(dit, tmp_path)}"
    for tiers in ((frozen_clip, exact), (frozen_clip, by_class), (None, None), ("sklearn:SVC", None)):
        with pytest.raises(InvalidInputError, match=r"neither tier reads prompts.*named by a spec string"):
            HybridClassifier(*tiers, prompts=PROMPTS).fit(np.zeros((4, 3)), [0, 0, 1, 1])
    clf = HybridClassifier(specs[0], by_class, prompts=PROMPTS, **QUICK).fit(None, ["tench", "goldfish"])
    assert clf.proposer_.prompts == (PROMPTS,)


@pytest.fixture
def frozen_clip(specs: tuple[str, str]) -> Any:
    return load_open_clip(specs[0].removeprefix("open_clip:"))


@pytest.mark.parametrize("prompts", ["a photo", [], ["a {}", "a"], 3, ["a {}", None]])
def test_prompts_without_a_place_for_the_label(prompts: Any, specs: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError, match=r"prompts must be a template with \{\}"):
        HybridClassifier(*specs, prompts=prompts).fit(None, LABELS)


def test_device_and_dtype_reach_both_tiers(specs: tuple[str, str], pictures: list[Image.Image]) -> None:
    clf = HybridClassifier(*specs, device="cpu", dtype="bfloat16", **QUICK).fit(None, LABELS)
    assert clf.proposer_.dtype == clf.denoiser_.dtype == torch.bfloat16
    assert clf.proposer_.device == clf.denoiser_.device == torch.device("cpu")
    np.testing.assert_allclose(clf.predict_proba(pictures[:2]).sum(axis=1), 1)
    with pytest.raises(InvalidInputError, match="dtype='float64' is for a denoiser that is trained here"):
        HybridClassifier(*specs, dtype="float64").fit(None, LABELS)


# --- names that repeat, and functions as templates --------------------------------------------------------------------

CRANES = ["crane", "dog", "crane"]
APART = ["crane (#0)", "dog", "crane (#2)"]


def test_names_that_repeat_are_told_apart_by_their_positions(
    specs: tuple[str, str], pictures: list[Image.Image], tmp_path: Path
) -> None:
    clf = HybridClassifier(*specs, **QUICK).fit(None, CRANES)
    assert clf.classes_.tolist() == APART
    posterior = clf.predict_proba(pictures)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    np.testing.assert_allclose(posterior[:, 0], posterior[:, 2], rtol=1e-4)  # what reads the same is as likely
    prior = np.exp(clf.proposer_.predict_log_proba(pictures))
    alone = np.exp(clf.with_labels(["crane", "dog"]).proposer_.predict_log_proba(pictures))
    np.testing.assert_allclose(prior[:, 0] / prior[:, 1], alone[:, 0] / alone[:, 1], rtol=1e-4)  # no prompt has "(#0)"
    conditions = clf.denoiser_.condition(APART)["text"]
    np.testing.assert_array_equal(conditions, clf.denoiser_.condition(["crane", "dog", "crane"])["text"])
    np.testing.assert_array_equal(conditions[0], clf.denoiser_.condition(["crane"])["text"][0])

    clf.save(tmp_path / "model")
    again = HybridClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(pictures), posterior)
    np.testing.assert_array_equal(clf.with_labels(CRANES).predict_proba(pictures), posterior)
    np.testing.assert_array_equal(clf.with_labels(APART).predict_proba(pictures), posterior)
    answer = zero_shot(pictures[0], CRANES, model=tmp_path / "model")
    assert {entry["label"] for entry in answer} == set(APART)
    clf.calibrate(pictures, APART * 2)
    with pytest.raises(InvalidInputError, match="label 'crane' is not in the classes"):
        clf.calibrate(pictures, CRANES * 2)


@pytest.mark.parametrize("labels", [["crane", "crane"], ["crane", "Crane", "crane"], ["", "dog", ""], [1, 2, 1]])
def test_repeated_names_that_are_no_classes(labels: list[Any], specs: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        HybridClassifier(*specs, **QUICK).fit(None, labels)


def test_functions_as_templates_reach_both_tiers(
    specs: tuple[str, str], pictures: list[Image.Image], tmp_path: Path
) -> None:
    def pet(name: str) -> str:
        return f"a {name}, a pet."

    expected = HybridClassifier(*specs, prompts=PROMPTS, **QUICK).fit(None, LABELS).predict_proba(pictures[:2])
    for prompts in (pet, [pet], [lambda name: pet(name)]):
        clf = clone(HybridClassifier(*specs, prompts=prompts, **QUICK)).fit(None, LABELS)
        np.testing.assert_array_equal(clf.predict_proba(pictures[:2]), expected)
    with pytest.raises(SavedModelError, match=r"the function .* cannot be saved; prompts that are texts with \{\} can"):
        clf.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- other labels -----------------------------------------------------------------------------------------------------


def test_other_labels_keep_models_and_calibration(calibrated: HybridClassifier, pictures: list[Image.Image]) -> None:
    before = calibrated.predict_proba(pictures)
    other = calibrated.with_labels(OTHERS)
    assert other.classes_.tolist() == OTHERS
    assert other.denoiser_ is calibrated.denoiser_ and other.proposer_.model is calibrated.proposer_.model
    assert other.calibration_ is calibrated.calibration_ and other.fusion_ is calibrated.fusion_
    fresh = clone(calibrated).fit(None, OTHERS)
    assert fresh.calibration_ is None
    fresh.calibration_, fresh.fusion_ = calibrated.calibration_, calibrated.fusion_
    np.testing.assert_array_equal(other.predict_proba(pictures), fresh.predict_proba(pictures))
    assert calibrated.classes_.tolist() == LABELS
    np.testing.assert_array_equal(calibrated.predict_proba(pictures), before)
    np.testing.assert_array_equal(other.with_labels(LABELS).predict_proba(pictures), before)


def test_a_fit_forgets_the_calibration(calibrated: HybridClassifier, pictures: list[Image.Image]) -> None:
    again = calibrated.with_labels(LABELS)
    again.calibrate(pictures[:3], LABELS)
    assert again.calibration_.n_images == 3 and calibrated.calibration_.n_images == 6
    assert again.fit(None, OTHERS).calibration_ is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], r"at least two different names, got \[\]"),
        (None, "at least two different names, got None"),
        ("cat", "at least two different names, got 'cat'"),
        (["cat"], r"at least two different names, got \['cat'\]"),
        (["cat", "cat"], "at least two different names"),
        (["cat", " "], r"a label is empty, got \['cat', ' '\]"),
        (["cat", "Cat"], "'cat' and 'Cat' read the same to the model"),
    ],
)
def test_labels_that_cannot_be_told_apart(labels: Any, message: str, calibrated: HybridClassifier) -> None:
    with pytest.raises(InvalidInputError, match=message):
        calibrated.with_labels(labels)
    with pytest.raises(InvalidInputError, match=message):
        clone(calibrated).fit(None, labels)


# --- saving -----------------------------------------------------------------------------------------------------------


def test_zero_shot_settings_are_saved_by_name(
    calibrated: HybridClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    calibrated.save(tmp_path / "model")
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["model.json"]
    again = HybridClassifier.load(tmp_path / "model")
    assert again.get_params() == calibrated.get_params()
    assert again.prompts == PROMPTS and again.fusion_ == calibrated.fusion_
    np.testing.assert_array_equal(again.predict_proba(pictures), calibrated.predict_proba(pictures))
    np.testing.assert_array_equal(
        again.with_labels(OTHERS).predict_proba(pictures), calibrated.with_labels(OTHERS).predict_proba(pictures)
    )


def test_several_prompts_are_saved(specs: tuple[str, str], frozen_clip: Any, tmp_path: Path) -> None:
    by_class = f"diffusers:{save(dit, tmp_path / 'dit')}"
    clf = HybridClassifier(specs[0], by_class, prompts=("a {}.", "the {}."), **QUICK).fit(None, ["tench", "goldfish"])
    clf.save(tmp_path / "model")
    assert HybridClassifier.load(tmp_path / "model").proposer_.prompts == ("a {}.", "the {}.")


def test_other_prompts_when_loading(calibrated: HybridClassifier, pictures: list[Image.Image], tmp_path: Path) -> None:
    calibrated.save(tmp_path / "model")
    other = HybridClassifier.load(tmp_path / "model", prompts="the {}")
    fresh = clone(calibrated).set_params(prompts="the {}").fit(None, LABELS)
    fresh.calibration_, fresh.fusion_ = calibrated.calibration_, calibrated.fusion_
    np.testing.assert_array_equal(other.predict_proba(pictures), fresh.predict_proba(pictures))
    with pytest.raises(InvalidInputError, match="prompts must be a template"):
        HybridClassifier.load(tmp_path / "model", prompts="the")
    with pytest.raises(InvalidInputError, match="neither tier reads prompts"):
        HybridClassifier.from_pretrained("digits", prompts="a {}")


def test_a_folder_with_its_tiers_in_it_can_be_moved(
    text_pair: Path,
    calibrated: HybridClassifier,
    pictures: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(text_pair, tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    specs = specs_of(Path("model"))  # from the working folder, and without a "./"
    clf = clone(calibrated).set_params(**dict(zip(("proposer", "denoiser"), specs, strict=True)))
    clf.fit(None, LABELS).calibrate(pictures, LABELS * 2).save(folder)
    saved = json.loads((folder / "model.json").read_text())
    assert (saved["proposer"], saved["denoiser"]) == ("open_clip:local-dir:./clip", "diffusers:./sd")

    moved = folder.rename(tmp_path / "moved")
    loaded = HybridClassifier.from_pretrained(moved)
    assert (loaded.proposer, loaded.denoiser) == specs_of(moved)
    np.testing.assert_array_equal(loaded.predict_proba(pictures), calibrated.predict_proba(pictures))
    loaded.save(moved)
    assert json.loads((moved / "model.json").read_text()) == saved
    shutil.rmtree(moved / "sd")
    with pytest.raises(SavedModelError, match="is incomplete: it has no sd"):
        HybridClassifier.load(moved)


def test_only_its_own_tiers_may_be_in_the_folder(text_pair: Path, calibrated: HybridClassifier, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_pair, tmp_path / "model"))
    with pytest.raises(SavedModelError, match="exists and is not a saved model"):
        calibrated.save(folder)  # its tiers are elsewhere
    assert not (folder / "model.json").exists()


def test_a_saved_model_cannot_reach_out_of_its_folder(calibrated: HybridClassifier, tmp_path: Path) -> None:
    calibrated.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    for spec in ("diffusers:./../sd", "diffusers:../sd", "diffusers:sd/../../sd"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"denoiser": spec}))
        with pytest.raises(SavedModelError, match="leads out of that folder"):
            HybridClassifier.load(tmp_path / "model")
