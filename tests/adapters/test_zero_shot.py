"""Both tiers from adapters: a zero-shot classifier of pictures of any size, then calibrated on a few of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridclf import HybridClassifier, InvalidInputError, PairedTTest
from hybridclf_adapters import diffusers
from hybridclf_adapters.open_clip import load as load_open_clip
from tests.adapters.tiny_diffusers import save, stable_diffusion
from tests.adapters.tiny_open_clip import save_open_clip

LABELS = ["cat", "dog", "red ball"]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Spec strings of a tiny CLIP and a tiny Stable Diffusion with random weights."""
    pipeline = save(stable_diffusion, tmp_path_factory.mktemp("sd"))
    return save_open_clip(tmp_path_factory.mktemp("clip"), "tiny-zero-shot"), f"diffusers:{pipeline}"


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (40, 40), (33, 29), (32, 32), (64, 48), (30, 31)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_spec_strings_classify_pictures_of_any_size(specs: tuple[str, str], images: list[Image.Image]) -> None:
    allocation = PairedTTest(min_trials=2, max_trials=3)
    clf = HybridClassifier(*specs, top_k=2, allocation=allocation, random_state=0).fit(None, LABELS)
    assert clf.calibration_ is None
    posterior, results = clf.decide(images)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert all(len(r.candidates) == 2 and 4 <= r.evaluations <= 6 for r in results)
    prior = np.exp(clf.proposer_.predict_log_proba(images))
    never = prior.argmin(axis=1)
    np.testing.assert_allclose(posterior[np.arange(6), never], prior.min(axis=1), rtol=1e-4)
    assert set(clf.predict(images)) <= set(LABELS)


def test_a_few_labelled_pictures_calibrate_it(specs: tuple[str, str], images: list[Image.Image]) -> None:
    name, folder = specs[0].removeprefix("open_clip:"), specs[1].removeprefix("diffusers:")
    proposer = load_open_clip(name, prompts="a photo of a {}.")
    clf = HybridClassifier(proposer, diffusers.load(folder, prompts="a photo of a {}."), random_state=0)
    clf.fit(None, LABELS).calibrate(images, ["cat", "dog", "red ball"] * 2)
    assert clf.calibration_ is not None and clf.calibration_.n_images == 6
    np.testing.assert_allclose(clf.predict_proba(images[:2]).sum(axis=1), 1)


def test_zero_shot_settings_are_saved_by_name(
    specs: tuple[str, str], images: list[Image.Image], tmp_path: Path
) -> None:
    allocation = PairedTTest(min_trials=2, max_trials=2)
    clf = HybridClassifier(*specs, allocation=allocation, random_state=0).fit(None, LABELS)
    clf.save(tmp_path / "model")
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["model.json"]
    again = HybridClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(again.predict_proba(images), clf.predict_proba(images), atol=1e-6)


def test_without_a_denoiser_there_is_nothing_zero_shot(specs: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="pass a denoiser"):
        HybridClassifier(specs[0]).fit(None, LABELS)
