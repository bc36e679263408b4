"""Scores of captions: against the networks asked by hand, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hybridclf import FixedTrials, Fusion, HybridClassifier, InvalidInputError, PairedTTest
from hybridclf.captions import check_captions
from hybridclf.errors import InvalidTypeError
from hybridclf.ports import TextModel
from tests.adapters.tiny_pair import specs_of

CAPTIONS = [["a red ball on a box", "a box on a red ball"], ["a cat", "two cats", "a cat and a box"]]
T = 3


@pytest.fixture(scope="module")
def clf(text_pair: Path) -> HybridClassifier:
    """Both tiers are models of text, with a prompt template that captions do without; not to be changed."""
    clf = HybridClassifier(
        *specs_of(text_pair), prompts="a photo of a {}.", allocation=PairedTTest(min_trials=2, max_trials=3)
    )
    return clf.set_params(random_state=0).fit(None, ["cat", "dog"])


def test_errors_are_those_of_the_denoiser(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    """Trial by trial: ‖ε - ε̂‖² of the network, with each caption and with the empty text."""
    denoiser = clf.denoiser_
    plan = clf.reranker(FixedTrials(T), Fusion()).plan
    t = torch.from_numpy(plan.timesteps(np.arange(T)))
    noise = torch.from_numpy(plan.noise(np.arange(T)))
    alpha, sigma = (v[:, None, None, None] for v in denoiser.noise_levels(t))
    found = clf.score_captions(pictures[:2], CAPTIONS, trials=T)
    for picture, captions, scores in zip(pictures, CAPTIONS, found, strict=False):
        with torch.inference_mode():
            x_t = alpha * denoiser.encode([picture]) + sigma * noise
            for text, own in zip([*captions, ""], [*scores.errors.T, scores.unconditional], strict=True):
                condition = {"text": denoiser.embed([text])["text"].expand(T, -1, -1)}
                residual = denoiser.predict(x_t, t, torch.arange(T), condition) - noise
                np.testing.assert_allclose(own, residual.square().flatten(1).sum(1), rtol=1e-4)
        np.testing.assert_allclose(scores.error, scores.errors.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(scores.gain, scores.unconditional.mean() - scores.error, atol=1e-4)


def test_tier_1_has_clips_similarities(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    clip: Any = clf.proposer_
    found = clf.score_captions(pictures[:2], CAPTIONS, trials=1)
    for picture, captions, scores in zip(pictures, CAPTIONS, found, strict=False):
        with torch.inference_mode():
            image = clip.model.encode_image(clip.transform(picture)[None], normalize=True)
            text = clip.model.encode_text(clip.tokenizer(captions), normalize=True)
            expected = clip.model.logit_scale.exp() * (image @ text.T)[0]
        assert scores.tier_1 is not None
        np.testing.assert_allclose(scores.tier_1, expected, rtol=1e-4, atol=1e-4)


def test_the_classifier_stays_as_it_is(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    before, templates = clf.predict_proba(pictures[:1]), clf.denoiser_.templates
    clf.score_captions(pictures[:1], CAPTIONS[:1], trials=1)
    assert clf.denoiser_.templates == templates == ("a photo of a {}.",) and clf.classes_.tolist() == ["cat", "dog"]
    np.testing.assert_array_equal(clf.predict_proba(pictures[:1]), before)
    assert isinstance(clf.denoiser_, TextModel) and isinstance(clf.proposer_, TextModel)


def test_scores_do_not_depend_on_what_else_is_asked(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    together = clf.score_captions(pictures[:2], CAPTIONS[0], trials=T)  # one list for all images
    (alone,) = clf.score_captions(pictures[1:2], [CAPTIONS[0][::-1]], trials=T)
    assert together[0].captions == together[1].captions == tuple(CAPTIONS[0])
    np.testing.assert_allclose(together[1].errors[:, ::-1], alone.errors, rtol=1e-4)
    np.testing.assert_allclose(together[1].unconditional, alone.unconditional, rtol=1e-4)


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ([CAPTIONS[0]] * 3, "got 2 images and 3 lists of captions"),
        ([["a cat"], []], r"image 1 needs captions that are texts and not empty, got \[\]"),
        ([["a cat"], [" "]], "image 1 needs captions that are texts and not empty"),
        ([["a cat"], [3]], "image 1 needs captions that are texts and not empty"),
        ([["a cat", "a dog", "a cat"], ["a dog"]], "image 0 has a caption twice"),
        ("a cat", r"got the text 'a cat'; give \['a cat'\]"),
        ([["a cat"], "a dog"], r"some are texts, such as 'a dog'; give one list per image: \['a dog'\]"),
        ([["a cat"], ["A CAT"]], "'a cat' and 'A CAT' read the same to the model"),
    ],
)
def test_captions_that_cannot_be_scored(
    clf: HybridClassifier, pictures: list[Image.Image], captions: Any, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        clf.score_captions(pictures[:2], captions)


@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Series, iter])
def test_one_list_of_texts_is_for_all_images(form: Any) -> None:
    assert check_captions(form(["ab", "cd"]), 2) == [("ab", "cd")] * 2
    assert check_captions(np.array([["ab", "cd"], ["ef", "gh"]]), 2) == [("ab", "cd"), ("ef", "gh")]


def test_trials_are_a_whole_number(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    with pytest.raises(InvalidInputError, match="must be a whole number of at least 1"):
        clf.score_captions(pictures[:1], ["a cat"], trials=0)


def test_a_denoiser_of_classes_has_no_captions(gaussian_denoiser: Any) -> None:
    denoiser = gaussian_denoiser({"ant": np.zeros(3), "bee": np.ones(3)})
    clf = HybridClassifier(lambda X: np.full((len(X), 2), np.log(0.5)), denoiser).fit(None, ["ant", "bee"])
    with pytest.raises(InvalidTypeError, match="need a denoiser that is a model of text, and GaussianDenoiser knows"):
        clf.score_captions(np.zeros((1, 3)), ["ant"])


def test_a_tier_1_of_classes_has_no_scores(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    def uniform(images: Any) -> np.ndarray:
        return np.full((len(images), 2), np.log(0.5))

    mixed = HybridClassifier(uniform, clf.denoiser_, random_state=0).fit(None, ["cat", "dog"])
    images = np.stack([np.asarray(picture.resize((32, 32))) for picture in pictures[:1]])
    (scores,) = mixed.score_captions(images, ["a cat", "a dog"], trials=2)
    assert scores.tier_1 is None and np.isfinite(scores.gain).all()


def test_errors_that_are_not_finite_stay_visible(clf: HybridClassifier, pictures: list[Image.Image]) -> None:
    class Broken:
        """The same denoiser, which makes nothing of black pictures."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def with_prompts(self, prompts: str) -> "Broken":
            return Broken(self.inner.with_prompts(prompts))

        def encode(self, images: Any) -> torch.Tensor:
            black = torch.tensor([not np.any(np.asarray(image)) for image in images])
            return self.inner.encode(images).masked_fill(black[:, None, None, None], torch.nan)

    broken = HybridClassifier(clf.proposer_, Broken(clf.denoiser_), random_state=0).fit(None, ["cat", "dog"])
    found = broken.score_captions([Image.new("RGB", (32, 32)), *pictures[:2]], ["a cat", "a dog"], trials=2)
    assert np.isnan(found[0].gain).all() and np.isnan(found[0].errors).all() and found[0].errors.shape == (2, 2)
    assert all(np.isfinite(one.gain).all() for one in found[1:])
