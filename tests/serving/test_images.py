"""Images of models without a fixed size: what arrives large is held small, and the answer stays."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hybridclf import HybridClassifier, PairedTTest
from hybridclf.data.decoders import Decoders
from hybridclf.serving.images import GAP, bytes_of, least_side, read_item
from tests.adapters.tiny_pair import specs_of


@pytest.fixture(scope="module")
def clf(text_pair: Path) -> HybridClassifier:
    allocation = PairedTTest(min_trials=2, max_trials=3)
    return HybridClassifier(*specs_of(text_pair), allocation=allocation, random_state=0).fit(None, ["cat", "dog"])


def drawing(side: int) -> bytes:
    image = Image.new("RGB", (side, side), (240, 240, 240))
    ImageDraw.Draw(image).ellipse((side // 5, side // 4, side * 3 // 4, side * 4 // 5), (200, 30, 40))
    file = BytesIO()
    image.save(file, "png")
    return file.getvalue()


def test_a_large_image_is_held_at_the_models_own_size(clf: HybridClassifier) -> None:
    side = least_side(clf)
    assert side == GAP * max(clf.proposer_.feature_side, clf.denoiser_.resolution)
    with Decoders(1) as decoders:
        small, whole = read_item(drawing(2000), clf, decoders), decoders.decode(drawing(2000))
    assert side <= min(small.size) < 2 * side
    assert bytes_of(small) <= 4 * (2 * side) ** 2
    # both tiers see the same to within a level of 255
    for size in (clf.proposer_.feature_side, clf.denoiser_.resolution):
        pixels = [np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), float) for image in (small, whole)]
        assert np.abs(pixels[0] - pixels[1]).mean() < 1
    np.testing.assert_allclose(clf.predict_proba([small]), clf.predict_proba([whole]), atol=0.02)


def test_a_model_of_a_fixed_size_has_none() -> None:
    assert least_side(HybridClassifier.from_pretrained("digits")) is None
