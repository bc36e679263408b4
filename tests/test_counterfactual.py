"""Counterfactuals: a 3 becomes an 8, reconstructions stay, and pictures have the form of the image."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import FixedTrials, Fusion, HybridClassifier, InvalidInputError, InvalidTypeError
from hybridclf.data.arrays import scaled, to_bytes
from hybridclf.demo.explanations import draw_explanation
from hybridclf.ports import DecodingDenoiser


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture(scope="module")
def three() -> np.ndarray:
    digits = load_digits()
    return digits.images[np.flatnonzero(digits.target == 3)[20]]


def test_a_three_becomes_an_eight(clf: HybridClassifier, three: np.ndarray) -> None:
    found = clf.counterfactual(three, 3, 8)
    assert (found.a, found.b) == (3, 8)
    np.testing.assert_allclose(found.image, three, atol=1e-9)
    tier_2 = clf.reranker(FixedTrials(32), Fusion())
    pictures = np.stack([found.image, found.reconstruction_a, found.changed])
    ranked = [result.ranking[0] for result in tier_2.rerank(pictures, [[3, 8]] * 3)]
    assert ranked == [3, 3, 8]
    # its layout stays: hardly a real eight is nearer to the image
    digits = load_digits()
    distances = np.abs(digits.images[digits.target == 8] - three).mean(axis=(1, 2))
    assert np.abs(found.changed - three).mean() < np.quantile(distances, 0.05)


def test_reconstructions_come_closer_with_steps_and_the_change_does_not(
    clf: HybridClassifier, three: np.ndarray
) -> None:
    few, many = (clf.counterfactual(three, 3, 8, steps=steps) for steps in (10, 40))
    for name in ("reconstruction_a", "reconstruction_b"):
        far, near = (np.abs(getattr(found, name) - three).mean() for found in (few, many))
        assert near < 0.5 * far
    assert np.abs(many.changed - three).mean() > 1
    weak = clf.counterfactual(three, 3, 8, steps=10, strength=0.1)
    assert np.abs(weak.changed - three).mean() < 0.5 * np.abs(few.changed - three).mean()


def test_the_closed_form_of_gaussian_classes(gaussian_denoiser: type) -> None:
    """Near time 1 the change is the difference of the means."""

    class Decoding(gaussian_denoiser):  # type: ignore[misc]
        def decode(self, x0: Any) -> np.ndarray:
            return x0.numpy()

    means = np.random.default_rng(0).standard_normal((2, 6))
    denoiser, y = Decoding(dict(zip("ab", means, strict=True)), 0.5), np.arange(40) % 2
    X = means[y] + 0.5 * np.random.default_rng(1).standard_normal((40, 6))
    assert isinstance(denoiser, DecodingDenoiser)

    def tier_1(X: Any) -> np.ndarray:
        return np.log(np.full((len(X), 2), 0.5))

    fitted = HybridClassifier(tier_1, denoiser, random_state=0).fit(X, np.array(["a", "b"])[y])
    found = fitted.counterfactual(X[0], "a", "b", steps=300, strength=0.999)
    np.testing.assert_allclose(found.image, X[0])
    np.testing.assert_allclose(found.changed - X[0], means[1] - means[0], atol=0.05)
    by_default = fitted.counterfactual(X[1], steps=2)
    assert {by_default.a, by_default.b} == {"a", "b"} and by_default.a == fitted.predict(X[1:2])[0]


def test_pictures_have_the_form_of_the_image(clf: HybridClassifier, three: np.ndarray, tmp_path: Path) -> None:
    eight_bit = (three * 15.9).astype(np.uint8)
    file = tmp_path / "three.png"
    Image.fromarray(eight_bit).save(file)
    floats = clf.counterfactual(three, 3, 8, steps=2)
    assert floats.changed.shape == (8, 8) and floats.changed.dtype == np.float64
    for image in (eight_bit, Image.fromarray(eight_bit), file, str(file)):
        found = clf.counterfactual(image, 3, 8, steps=2)
        assert np.array_equal(found.image, eight_bit)
        assert found.changed.shape == (8, 8) and found.changed.dtype == np.uint8
        np.testing.assert_allclose(found.changed * (16 / 255), floats.changed.clip(0, 16), atol=0.3)


def test_bytes_are_scaled_there_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for pixel_range in ((0.0, 16.0), (-1.0, 1.0), (0.0, 255.0)):
        assert np.array_equal(to_bytes(scaled(pixels, pixel_range), pixel_range), pixels)
    assert to_bytes(np.array([-1.0, 17.0]), (0.0, 16.0)).tolist() == [0, 255]


def test_a_denoiser_that_does_not_decode(gaussian_denoiser: type) -> None:
    denoiser = gaussian_denoiser({"a": np.zeros(2), "b": np.ones(2)})
    assert not isinstance(denoiser, DecodingDenoiser)
    X, y = np.random.default_rng(0).standard_normal((30, 2)), np.array(["a", "b"] * 15)
    fitted = HybridClassifier(lambda X: np.log(np.full((len(X), 2), 0.5)), denoiser, random_state=0).fit(X, y)
    with pytest.raises(InvalidTypeError, match=r"GaussianDenoiser has no method decode; .* decode\(x0\) -> images"):
        fitted.counterfactual(X[0])


def test_bad_input(clf: HybridClassifier, three: np.ndarray) -> None:
    options: dict[str, Any]
    for options, match in (
        ({"a": 11}, "11 is none of the classes"),
        ({"a": 3, "b": 3}, "give two different classes"),
        ({"steps": 0}, "steps must be"),
        ({"strength": 0}, "strength must be .* above 0 and below 1"),
        ({"strength": 1}, "strength must be"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            clf.counterfactual(three, **options)
    broken = copy.copy(clf)
    broken.denoiser_ = copy.copy(clf.denoiser_)
    broken.denoiser_.predict = lambda x_t, t, row, condition: x_t[row] * np.nan
    with pytest.raises(InvalidInputError, match="not finite"):
        broken.counterfactual(three, 3, 8, steps=2)


def test_too_few_steps_are_said(clf: HybridClassifier, three: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="the reconstruction is far from the image"):
        clf.counterfactual(three, 3, 8, steps=1, strength=0.99)


def test_classes_are_those_of_the_classifier(clf: HybridClassifier, three: np.ndarray) -> None:
    found = clf.counterfactual(three, np.int64(3), 8.0, steps=1, strength=0.1)
    assert [type(label) for label in (found.a, found.b)] == [int, int]
    assert found != clf.counterfactual(three, 3, 8, steps=1, strength=0.1)  # no array is compared
    for label in (np.array([3]), np.array([3, 8]), [3], "3"):
        with pytest.raises(InvalidInputError, match="is none of the classes"):
            clf.counterfactual(three, label, 8)


def test_drawn_beside_the_explanation(clf: HybridClassifier, three: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    why = clf.explain(three, 3, 8, trials=4)
    for image in (three, Image.fromarray((three * 15.9).astype(np.uint8))):
        figure = draw_explanation(why, image, clf.counterfactual(image, 3, 8, steps=2))
        titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
        assert titles == ["image", "regenerated\nas 3", "changed\nto 8"]
        shown = [axes.images[0].get_array() for axes in figure.axes[:2]]
        assert len(figure.axes) == 6 and np.abs(shown[0] - shown[1]).mean() < 0.2
