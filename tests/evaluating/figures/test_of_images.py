"""Figures that ask the digits pair again: cropped error maps, and coarser images."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier
from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.figures.asking import Asking
from hybridclf.evaluating.figures.crops import WHOLE, _cropped
from hybridclf.evaluating.figures.resolution import AS_GIVEN, coarser
from hybridclf.evaluating.recording import record
from hybridclf.evaluating.study import Study
from hybridclf.fitting.validation import class_numbers


@pytest.fixture(scope="module")
def study() -> Study:
    clf, digits = HybridClassifier.from_pretrained("digits"), load_digits()
    items, y = clf._read(digits.images[:60]), class_numbers(digits.target[:60], clf.classes_)
    recording = record(clf, items, y, trials=8, top_k=10)
    return Study(clf, items, recording, np.arange(60) % 3 == 0)


def test_cropped_errors() -> None:
    rng = np.random.default_rng(0)
    noise, predicted = rng.standard_normal((2, 5, 3, 6, 8))
    errors = _cropped(2, torch.from_numpy(noise), torch.from_numpy(predicted))
    np.testing.assert_allclose(errors, ((noise - predicted)[:, :, 2:4, 2:6] ** 2).sum((1, 2, 3)))


def test_crops(study: Study) -> None:
    figure = make_figure("crops", study)
    rows = {row["crops"]: row for row in figure.rows}
    assert list(rows) == [WHOLE, "1 of 8 off each side", "2 of 8 off each side", "3 of 8 off each side"]
    test = study.test
    best = test.errors["l2"].sum(axis=1).argmin(axis=1)
    assert rows[WHOLE]["accuracy"][0] == pytest.approx(test.hit[np.arange(len(test)), best].mean())
    assert rows["3 of 8 off each side"]["difference"][2] < 0, "four pixels in the middle do not tell digits apart"
    assert "Figure 9" in figure.reference and figure.svg.startswith("<svg")


def test_what_is_asked_again_is_what_was_recorded(study: Study) -> None:
    ask = Asking(study)
    np.testing.assert_allclose(ask.errors()[..., 0], ask.recorded.errors["l2"], rtol=1e-5)


def test_resolution(study: Study) -> None:
    figure = make_figure("resolution", study)
    rows = {row["resolution"]: row for row in figure.rows}
    assert list(rows) == [AS_GIVEN, "1/2 of the pixels a side", "1/4 of the pixels a side"]
    coarsest = rows["1/4 of the pixels a side"]
    assert coarsest["difference"][2] < 0 and coarsest["tier_1"] < rows[AS_GIVEN]["tier_1"]


@pytest.mark.parametrize("form", ["array", "pil"])
def test_coarser_images(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    images: Any = pixels if form == "array" else [Image.fromarray(p) for p in pixels]
    out = np.stack([np.asarray(image) for image in coarser(images, 2)])
    assert out.shape == pixels.shape and out.dtype == np.uint8
    blocks, of_out = (a.reshape(2, 4, 2, 6, 2, 3).mean((2, 4)) for a in (pixels.astype(float), out.astype(float)))
    assert np.abs(blocks - of_out).mean() < 20 < np.abs(pixels.astype(float) - out).mean()
    flat = np.full((1, 8, 8, 1), 77, np.uint8)
    np.testing.assert_array_equal(coarser(flat, 4), flat)
