"""A fitted classifier reads PIL images, image files and 8-bit arrays as `hybridclf classify` reads files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier
from hybridclf.batch.answers import classify_files
from hybridclf.errors import InvalidInputError

DIGITS = load_digits()
PIXELS = (DIGITS.images[200:208] * 255 / 16).round().astype(np.uint8)
SIZES = ((8, 8), (64, 64), (100, 40), (9, 7))


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Digits of different sizes and modes."""
    modes = ("L", "RGB", "RGBA", "1")
    return [Image.fromarray(p).resize(s).convert(m) for p, s, m in zip(PIXELS, SIZES, modes, strict=False)]


@pytest.fixture(scope="module")
def files(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    return sorted(folder.iterdir())


# --- PIL images and files ---------------------------------------------------------------------------------------------


def test_images_of_any_size_are_read_as_classify_reads_files(
    clf: HybridClassifier, pictures: list[Image.Image], files: list[Path]
) -> None:
    answers = list(classify_files(clf, files, top=10))
    wanted = [{share.label: share.probability for share in answer.posterior} for answer in answers]
    expected = np.array([[shares[label] for label in clf.classes_.tolist()] for shares in wanted])
    forms: list[Any] = [
        pictures,
        tuple(pictures),
        files,
        list(map(str, files)),
        np.array(list(map(str, files))),
        pd.Series(list(map(str, files))),
        [pictures[0], str(files[1]), files[2], pictures[3]],
        [PIXELS[0], *files[1:]],
    ]
    for X in forms:
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
    labels = [answer.label for answer in answers]
    assert clf.predict(files).tolist() == labels
    assert clf.score(files, labels) == clf.score(pictures, labels) == 1
    assert [r.evaluations for r in clf.rerank(files)] == [answer.evaluations for answer in answers]
    assert sum(len(step.finished) for step in clf.stream(files)) == len(files)


def test_files_are_fitted_on_and_stretched_to_a_given_shape(tmp_path: Path) -> None:
    paths = []
    for i, (pixels, side) in enumerate(zip(PIXELS, (8, 16) * 4, strict=True)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(paths[-1])
    y = [0, 1] * 4
    unfitted = HybridClassifier(max_iter=1, cv=2, image_shape=(8, 8), random_state=0)
    clf = unfitted.fit(paths, y)
    assert (clf.image_shape_, clf.pixel_range_) == ((8, 8, 1), (0.0, 255.0))
    posterior = clf.predict_proba(paths)
    np.testing.assert_array_equal(clf.fit(PIXELS, y).predict_proba(PIXELS), posterior)


def test_a_model_of_vectors_reads_files_that_have_as_many_pixels(tmp_path: Path) -> None:
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(DIGITS.data[:80], DIGITS.target[:80])
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    expected = clf.predict_proba([Image.fromarray(PIXELS[0])])
    np.testing.assert_array_equal(clf.predict_proba([tmp_path / "a.png"]), expected)
    np.testing.assert_array_equal(clf.predict_proba(PIXELS[:1]), expected)
    Image.fromarray(PIXELS[0]).resize((9, 9)).save(tmp_path / "b.png")
    with pytest.raises(InvalidInputError, match="expected vectors of 64 numbers"):
        clf.predict([tmp_path / "b.png"])


def test_what_cannot_be_read_is_named(clf: HybridClassifier, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for X, message in (
        ([files[0], "gone.png"], r"^gone.png: cannot be read: No such file"),
        ([files[0], tmp_path / "text.png"], "text.png: not an image in one of the formats"),
        ([files[0].parent], "a folder; give the files in it"),
        (str(files[0]), r"X is one image; give a list of images: \[image\]"),
        (files[0], "X is one image"),
        (iter(files), r"X can be read only once; give a list of images: list\(X\)"),
        ([file.read_bytes() for file in files], r"X holds bytes; give paths or images: PIL\.Image\.open"),
        (Image.fromarray(PIXELS[0]), "X is one image"),
        ([Image.new("L", (8, 8)), Image.new("F", (8, 8))], "image 1: pixels are 32-bit numbers"),
        ([files[0], None], "image 1: an image must be a PIL image or a uint8 array"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            clf.predict(X)


# --- 8-bit arrays and other scales ------------------------------------------------------------------------------------


def test_uint8_arrays_are_the_pictures_they_show(clf: HybridClassifier) -> None:
    expected = clf.predict_proba(list(map(Image.fromarray, PIXELS)))
    assert clf.pixel_range_ == (0.0, 16.0)
    for X in (PIXELS, PIXELS[..., None], list(PIXELS), PIXELS.reshape(-1, 64)):
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
    black_and_white = PIXELS > 127
    as_pil = list(map(Image.fromarray, black_and_white))
    np.testing.assert_array_equal(clf.predict_proba(black_and_white), clf.predict_proba(as_pil))
    np.testing.assert_array_equal(clf.predict_proba(np.zeros_like(PIXELS)), clf.predict_proba(np.zeros((8, 8, 8))))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (DIGITS.images[:9].astype(np.uint8), "hold nothing above 1[56]; if they have the model's range, give floats"),
        (PIXELS.astype(np.int64), "int64 0 to 255, and the model was fitted on 0 to 16; give uint8 or PIL images"),
        (PIXELS.astype(np.uint16) * 257, "uint16 0 to 65535"),
    ],
)
def test_whole_numbers_that_may_mean_another_scale_are_refused(
    clf: HybridClassifier, X: np.ndarray, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        clf.predict(X)


def test_floats_of_another_scale_are_remarked_upon_once(clf: HybridClassifier) -> None:
    for X in (DIGITS.images[:9] / 16, PIXELS.astype(np.float32)):
        with pytest.warns(UserWarning, match="fitted on 0 to 16; if that is another scale, bring them") as told:
            clf.predict(X)
        assert len(told) == 1


def test_other_numbers_are_taken_as_they_are(clf: HybridClassifier) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = clf.predict_proba(DIGITS.images[:9])
        np.testing.assert_array_equal(clf.predict_proba(DIGITS.images[:9].astype(int)), expected)
        clf.predict(DIGITS.images[:9] * 1.5 - 3)
        clf.predict(DIGITS.images[:9] * 1000.0)


def test_in_a_table_a_uint8_is_a_number() -> None:
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(DIGITS.data[:80], DIGITS.target[:80])
    whole = DIGITS.data[80:90]
    np.testing.assert_array_equal(clf.predict_proba(whole.astype(np.uint8)), clf.predict_proba(whole))


def test_uint8_after_uint8_is_as_before() -> None:
    y = np.arange(8) % 2
    clf = HybridClassifier(max_iter=1, cv=2, random_state=0).fit(PIXELS, y)
    np.testing.assert_array_equal(clf.predict_proba(PIXELS), clf.predict_proba(PIXELS.astype(float)))
    dark = PIXELS // 64
    np.testing.assert_array_equal(clf.predict_proba(dark), clf.predict_proba(list(map(Image.fromarray, dark))))


def test_tier_1_sees_images_that_are_larger_than_the_denoiser() -> None:
    """By four times here: tier 2 sees their averages, and answers as for images of its own size."""
    digits, denoiser = load_digits(), HybridClassifier.from_pretrained("digits").denoiser_
    large, y, seen = digits.images.repeat(4, axis=1).repeat(4, axis=2), digits.target, set()

    def tier_1(images: np.ndarray) -> np.ndarray:
        seen.add(images.shape[1:])
        return np.log(np.full((len(images), 10), 0.1))

    clf = HybridClassifier(tier_1, denoiser, random_state=0).fit(large[:60], y[:60])
    assert seen == {(32, 32, 1)} and clf.image_shape_ == (32, 32, 1)
    small = HybridClassifier(tier_1, denoiser, random_state=0).fit(digits.images[:60], y[:60])
    np.testing.assert_allclose(clf.predict_proba(large[60:80]), small.predict_proba(digits.images[60:80]), atol=1e-6)
    zero_shot = HybridClassifier(tier_1, denoiser, image_shape=(16, 16), random_state=0).fit(None, list(range(10)))
    assert zero_shot.denoiser_.shape == (1, 8, 8) and zero_shot.denoiser_.shrink == 2
    with pytest.raises(InvalidInputError, match="expected images of 8x8x1, got images of 20x20x1"):
        HybridClassifier(tier_1, denoiser).fit(large[:60, :20, :20], y[:60])
