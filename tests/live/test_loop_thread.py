"""LoopThread: a request that was put is answered once, and none comes in beyond the capacity or after the end."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hybridclf.errors import ClosedError, QueueFullError
from hybridclf.live.loop_thread import LoopThread
from hybridclf.live.requests import Request
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import Race
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.tasks import Task

LABELS = ("ant", "bee", "cow", "dog", "elk")
SURE, UNSURE = np.log([0.96, 0.01, 0.01, 0.01, 0.01]), np.full(5, -np.log(5))
PATIENCE = 60.0
"""Seconds after which a test gives up."""


@pytest.fixture
def denoiser(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> Any:
    return gaussian_denoiser(means)


@pytest.fixture
def loop(denoiser: Any) -> Iterator[LoopThread]:
    fusion = Fusion(prior_alone=1.0, prior_weight=0.6, error_weight=0.4, correlation=0.1, calibrated=True)
    stage = Reranker(denoiser, allocation=Race(0.95, 8), fusion=fusion, batch_size=1)
    loop = LoopThread(stage, max_queue=0, max_candidates=5, observer=None)
    yield loop
    loop.close(drain=False)


def request(number: int, image: np.ndarray, log_prior: np.ndarray, condition: Any = None) -> Request:
    return Request(Task(number, LABELS, log_prior, condition=condition), image, "client", arrived=0.0)


def test_a_sure_prior_needs_no_place(loop: LoopThread, denoiser: Any, images: np.ndarray) -> None:
    sure = request(0, images[0], SURE)
    unsure = request(1, images[1], UNSURE, denoiser.condition(LABELS))
    assert (loop.settle(sure), loop.settle(unsure)) == (True, False)
    assert (sure.future.result(0).evaluations, unsure.future.done()) == (0, False)
    loop.put(unsure, None)
    assert unsure.future.result(PATIENCE).evaluations > 0
    assert loop.alive


def test_nothing_comes_in_beyond_the_capacity(loop: LoopThread, images: np.ndarray) -> None:
    loop.capacity = 0
    for take in (loop.check_open, lambda: loop.put(request(0, images[0], UNSURE), None)):
        with pytest.raises(QueueFullError, match="0 images wait or are under way already"):
            take()


def test_nothing_comes_in_after_the_end(loop: LoopThread, images: np.ndarray) -> None:
    late = request(0, images[0], UNSURE)
    loop.close(drain=True)
    assert not (loop.alive or loop.thread.is_alive())
    for take in (loop.check_open, lambda: loop.put(late, None)):
        with pytest.raises(ClosedError, match="takes no more images"):
            take()
    assert (loop.waiting, loop.under_way, late.future.done()) == (0, 0, False)
