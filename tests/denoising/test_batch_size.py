"""The timed batch size: from measured times, within the device's memory, once for each denoiser."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf import AsyncReranker, FixedTrials, HybridClassifier, Reranker
from hybridclf.denoising import batch_size
from hybridclf.denoising.batch_size import default_batch_size, timed_batch_size
from hybridclf.errors import InvalidInputError


class Clocked:
    """A denoiser whose calls take as long as a function of the batch's rows says, on a clock of its own."""

    shape, dtype, device, cost_unit = (2,), torch.float32, torch.device("cpu"), "row"

    def __init__(self, seconds: Callable[[int], float], most: int = 10**6) -> None:
        self.seconds, self.most, self.now, self.calls = seconds, most, 0.0, 0

    def condition(self, labels: list[str]) -> dict[str, torch.Tensor]:
        return {"label": torch.zeros(len(labels), dtype=torch.long)}

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, row: torch.Tensor, condition: Any) -> torch.Tensor:
        if len(x_t) > self.most:
            raise torch.OutOfMemoryError("none left")
        assert len(x_t) == len(t) == len(row) == len(condition["label"])
        self.now += self.seconds(len(x_t))
        self.calls += 1
        return x_t


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clocked], int]:
    def time(denoiser: Clocked) -> int:
        monkeypatch.setattr(batch_size, "perf_counter", lambda: denoiser.now)
        return timed_batch_size(denoiser, "a")  # type: ignore[arg-type]

    return time


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (lambda n: 0.001 * n, 10**6, 8),  # no batch is faster than another
        (lambda n: 0.01 + 0.0001 * n, 10**6, 1024),  # the longer the better
        (lambda n: 0.001 * max(n, 64), 10**6, 64),  # full from 64 on
        (lambda n: 0.01 + 0.0001 * n, 100, 64),  # what memory allows
        (lambda n: 0.5 + 0.01 * n, 10**6, 64),  # 1.14 s: the last that is tried
        (lambda n: 0.01, 4, 1),  # not even the shortest fits
    ],
)
def test_the_shortest_batch_that_is_nearly_as_fast_as_any(
    seconds: Callable[[int], float], most: int, expected: int, timed: Callable[[Clocked], int]
) -> None:
    assert timed(Clocked(seconds, most)) == expected


def test_a_denoiser_is_timed_once(timed: Callable[[Clocked], int]) -> None:
    denoiser = Clocked(lambda n: 0.001 * max(n, 64))
    assert timed(denoiser) == 64
    calls = denoiser.calls
    assert timed(denoiser) == 64 and denoiser.calls == calls
    other = Clocked(lambda n: 0.001 * n)
    assert timed(other) == 8


def test_a_slow_first_call_does_not_count(timed: Callable[[Clocked], int]) -> None:
    """A GPU that is warmed up, a network that is compiled."""
    denoiser = Clocked(lambda n: 0.001 * max(n, 64) + 30 * (denoiser.calls == 0))
    assert timed(denoiser) == 64


def test_a_live_service_cannot_time(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> None:
    stage = Reranker(gaussian_denoiser(means), batch_size="auto")
    with pytest.raises(InvalidInputError, match=r"call reranker.condition\(labels\) first, or give a number"):
        AsyncReranker(stage)
    stage.condition(sorted(means))
    AsyncReranker(stage).close()


def test_a_reranker_takes_it(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray, candidates: list[list[str]]
) -> None:
    denoiser = gaussian_denoiser(means)
    auto = Reranker(denoiser, allocation=FixedTrials(4), batch_size="auto")
    results = auto.rerank(images, candidates)
    assert auto.batch_size == timed_batch_size(denoiser, candidates[0][0])
    plain = Reranker(denoiser, allocation=FixedTrials(4)).rerank(images, candidates)
    for ours, theirs in zip(results, plain, strict=True):
        np.testing.assert_allclose(ours.posterior, theirs.posterior, atol=1e-6)


def test_a_real_network_is_timed_and_kept() -> None:
    clf = HybridClassifier.from_pretrained("digits").set_params(batch_size="auto")
    size = clf.reranker().batch_size
    assert size in batch_size.SIZES and clf.reranker().batch_size == size


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "all"])
def test_what_is_no_batch_size(size: Any, gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> None:
    with pytest.raises(InvalidInputError, match='batch_size must be a whole number of at least 1, "auto" or None'):
        Reranker(gaussian_denoiser(means), batch_size=size)


@pytest.mark.parametrize(
    ("device", "dtype", "cost_unit", "shape", "size"),
    [
        ("cpu", torch.float64, "row", (64,), 256),
        ("cpu", torch.float32, "row", (1, 8, 8), 128),
        ("cpu", torch.float32, "row", (3, 32, 32), 32),
        ("cpu", torch.float32, "pair", (4, 8, 8), 32),
        ("cuda", torch.float64, "row", (64,), 1024),
        ("cuda", torch.float32, "row", (3, 32, 32), 512),
        ("cuda", torch.float32, "row", (3, 64, 64), 170),
        ("cuda", torch.float32, "row", (3, 224, 224), 32),
        ("cuda", torch.float16, "pair", (4, 8, 8), 1024),
        ("cuda", torch.float16, "pair", (4, 32, 32), 128),
        ("cuda", torch.float16, "pair", (4, 64, 64), 32),
    ],
)
def test_a_single_image_does_not_wait_for_a_long_batch(
    device: str, dtype: torch.dtype, cost_unit: str, shape: tuple[int, ...], size: int
) -> None:
    denoiser: Any = SimpleNamespace(device=torch.device(device), dtype=dtype, cost_unit=cost_unit, shape=shape)
    assert default_batch_size(denoiser) == size
