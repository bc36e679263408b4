"""The service between a request and both tiers."""

import asyncio
from collections.abc import Callable
from io import BytesIO
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.frozen import FrozenEstimator

from hybridclf import HybridClassifier, InvalidInputError
from hybridclf.serving import Limits
from hybridclf.serving.questions import Question
from hybridclf.serving.service import Service
from tests.counting import CountingNB


def test_an_image_that_cannot_be_read_is_refused_though_its_deadline_has_passed_meanwhile() -> None:
    service = Service(HybridClassifier.from_pretrained("digits"), Limits())

    async def ask() -> None:
        asking = asyncio.ensure_future(service.answer(Question(b"no image", (3, 8), deadline=monotonic() + 0.05)))
        await asyncio.sleep(0)
        sleep(0.5)  # on the event loop, which hears of the error and of the deadline at once
        await asking

    try:
        with pytest.raises(InvalidInputError, match="not an image"):
            asyncio.run(ask())
    finally:
        service.close()


def test_tier_1_is_asked_once_by_a_model_that_rejects(gaussian_denoiser: Callable[..., Any]) -> None:
    """Of more classes than are compared for that: tier 1 chooses which."""
    rng, y = np.random.default_rng(0), np.arange(144) % 24
    means = rng.uniform(0, 255, size=(24, 8, 8, 3))
    images = (means[y] + rng.normal(0, 40, (144, 8, 8, 3))).clip(0, 255).astype(np.uint8)
    tier_1 = CountingNB(var_smoothing=1.0).fit(images.reshape(144, -1), y)
    clf = HybridClassifier(FrozenEstimator(tier_1), gaussian_denoiser(dict(enumerate(means)), s=40.0), random_state=0)
    service = Service(clf.fit(images, y).set_params(reject=0.1), Limits())
    try:
        png = BytesIO()
        Image.fromarray(images[0]).save(png, "PNG")
        question = Question(png.getvalue(), tuple(clf.classes_.tolist()), may_reject=True)
        tier_1.asked.clear()
        answer = asyncio.run(service.answer(question))
        assert tier_1.asked == [1] and answer.novelty == clf.novelty(images[:1])[0]
    finally:
        service.close()
