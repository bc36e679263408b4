"""The service between a request and both tiers."""

import asyncio
from time import monotonic, sleep

import pytest

from hybridclf import HybridClassifier, InvalidInputError
from hybridclf.serving import Limits
from hybridclf.serving.questions import Question
from hybridclf.serving.service import Service


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
