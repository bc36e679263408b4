"""Images of models without a fixed size: what arrives large is held small, and the answer stays."""

import base64
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hybridclf import HybridClassifier, PairedTTest
from hybridclf.data.decoders import Decoders
from hybridclf.errors import InvalidInputError
from hybridclf.estimator.reading import GAP
from hybridclf.serving.images import bytes_of, data_of, read_item
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
    side = clf._least_side
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
    assert HybridClassifier.from_pretrained("digits")._least_side is None


def test_base64_may_be_wrapped_and_that_costs_little() -> None:
    """Space after every other letter once made an object of each piece, fifty bytes for two."""
    data = drawing(8) + bytes(300_000)
    letters = base64.b64encode(data).decode()
    wrapped = " ".join(letters[i : i + 2] for i in range(0, len(letters), 2))
    tracemalloc.start()
    assert data_of(wrapped) == data
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * len(wrapped)
    for text in (f"data:image/png;base64,\r\n{letters}\n", f"\tDATA:image/png;base64,{letters}", f" {letters} "):
        assert data_of(text) == data
    assert data_of(base64.urlsafe_b64encode(data).decode()) == data
    for text, reason in ((f"{letters}\u00a0", "not valid base64"), (f"image/png,{letters}", "must be a data URI")):
        with pytest.raises(InvalidInputError, match=reason):
            data_of(text)
