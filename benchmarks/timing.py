"""Ratios of running times, measured side by side: absolute times mean little on a shared machine."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch

from hybridclf import Denoiser, Reranker

__all__ = ["Recorder", "class_cost", "loop_share", "ratio"]


def ratio(numerator: Callable[[], Any], denominator: Callable[[], Any], repeats: int = 7) -> float:
    """Median time of one function over that of another, called in turn after one warm-up each."""
    numerator(), denominator()
    times = [(_seconds(numerator), _seconds(denominator)) for _ in range(repeats)]
    above, below = np.median(times, axis=0)
    return float(above / below)


def _seconds(function: Callable[[], Any]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


class Recorder:
    """A denoiser that remembers what it was asked, so that the same batches can be asked of it again without a loop."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.calls: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def encode(self, images: Any) -> torch.Tensor:
        """The denoiser's answer; the question is remembered."""
        self.calls.append(lambda: self.denoiser.encode(images))
        return self.denoiser.encode(images)

    def predict(self, *arguments: Any) -> torch.Tensor:
        """The denoiser's answer; the question is remembered."""
        self.calls.append(lambda: self.denoiser.predict(*arguments))
        return self.denoiser.predict(*arguments)

    @torch.inference_mode()
    def replay(self) -> None:
        """Ask the denoiser all of it again."""
        for call in self.calls:
            call()


def loop_share(reranker: Reranker, images: np.ndarray, candidates: list, log_prior: list | None = None) -> float:
    """Time of the reranking loop over the time that the bare denoiser needs for the same batches."""
    bare = reranker.denoiser
    recorder = Recorder(bare)
    reranker.denoiser = recorder
    reranker.rerank(images, candidates, log_prior)
    reranker.denoiser = bare
    return ratio(lambda: reranker.rerank(images, candidates, log_prior), recorder.replay)


@torch.inference_mode()
def class_cost(denoiser: Any, n_rows: int, few: int = 1, many: int = 9) -> float:
    """What one more class per row costs, as a share of what the trunk costs."""
    x_t = torch.randn(n_rows, *denoiser.shape, dtype=denoiser.dtype, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, n_rows, dtype=denoiser.dtype)

    def predict(n_classes: int) -> None:
        label = torch.arange(n_classes).repeat(n_rows)
        denoiser.predict(x_t, t, torch.arange(n_rows).repeat_interleave(n_classes), {"label": label})

    times = [
        (
            _seconds(lambda: denoiser.network.trunk(x_t, t)),
            _seconds(lambda: predict(few)),
            _seconds(lambda: predict(many)),
        )
        for _ in range(40)
    ]
    trunk, with_few, with_many = np.median(times, axis=0)
    return float((with_many - with_few) / (many - few) / trunk)
