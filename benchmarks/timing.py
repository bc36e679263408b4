"""Ratios of running times, measured side by side: absolute times mean little on a shared machine."""

from collections.abc import Callable, Sequence
from copy import copy
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from hybridclf import Allocation, Denoiser, Reranker, RerankResult

__all__ = ["Recorder", "class_cost", "flops", "loop_share", "medians", "ratio", "ratio_range", "recorded", "timings"]


def ratio(numerator: Callable[[], Any], denominator: Callable[[], Any], repeats: int = 7) -> float:
    """Median of one function's time over another's, called in turn after one warm-up each."""
    return ratio_range(*timings(numerator, denominator, repeats=repeats).T)[0]


def medians(*functions: Callable[[], Any], repeats: int = 7) -> np.ndarray:
    """Median seconds of each function, all of them called in turn after one warm-up each."""
    return np.median(timings(*functions, repeats=repeats), axis=0)


def timings(*functions: Callable[[], Any], repeats: int) -> np.ndarray:
    """Seconds `[repeats, functions]` of each function, all of them called in turn after one warm-up each."""
    for function in functions:
        function()
    return np.array([[_seconds(function) for function in functions] for _ in range(repeats)])


def ratio_range(above: np.ndarray, below: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Median, and smallest and largest, of seconds `[repeats]` over those of the same turns.

    A machine that slows down for a while slows both sides of a turn.
    """
    ratios = above / below
    return float(np.median(ratios)), (float(ratios.min()), float(ratios.max()))


def _seconds(function: Callable[[], Any]) -> float:
    """Seconds of a call and of what it left to a GPU."""
    _finish()
    start = perf_counter()
    function()
    _finish()
    return perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def flops(function: Callable[[], Any]) -> int:
    """Floating-point operations of the networks in a call, as torch counts them: convolutions and matrix products.

    Those of a backward pass are counted too.
    """
    gradients = {torch.ops.aten.convolution_backward: _gradient_flops}
    with FlopCounterMode(display=False, custom_mapping=gradients) as counter:
        function()
    return counter.get_total_flops()


def _gradient_flops(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *more: Any, out_shape: Any = None
) -> int:
    """Operations of a convolution's gradients, by the shapes of its arguments: as many for each as forward.

    torch's own formula counts the weights' gradient as many times as there are groups.
    """
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = more
    return conv_flop_count(list(x), list(weight), list(grad), transposed) * sum(wanted[:2])


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


def recorded(
    denoiser: Denoiser, allocation: Allocation, images: Any, candidates: Sequence
) -> tuple[list[RerankResult], Recorder]:
    """Results of re-ranking, and the denoiser's batches behind them."""
    recorder = Recorder(denoiser)
    return Reranker(recorder, allocation=allocation).rerank(images, candidates), recorder


def loop_share(denoiser: Denoiser, allocation: Allocation, images: Any, candidates: Sequence) -> float:
    """Time of the reranking loop over the time that the bare denoiser needs for the same batches."""
    recorder = recorded(denoiser, allocation, images, candidates)[1]
    reranker = Reranker(denoiser, allocation=allocation)
    return ratio(lambda: reranker.rerank(images, candidates), recorder.replay)


@torch.inference_mode()
def class_cost(denoiser: Any, n_rows: int, few: int = 1, many: int = 9) -> float:
    """Cost of one more class per row, as a share of the trunk's."""
    device, denoiser = denoiser.device, copy(denoiser)
    denoiser.graphs = False  # of the trunk, which is also called by itself
    rng = torch.Generator().manual_seed(0)
    x_t = torch.randn(n_rows, *denoiser.shape, dtype=denoiser.dtype, generator=rng).to(device)
    t = torch.linspace(0.1, 0.9, n_rows, dtype=denoiser.dtype, device=device)

    def predict(n_classes: int) -> None:
        label = torch.arange(n_classes, device=device).repeat(n_rows)
        row = torch.arange(n_rows, device=device).repeat_interleave(n_classes)
        denoiser.predict(x_t, t, row, {"label": label})

    trunk, with_few, with_many = medians(
        lambda: denoiser.network.trunk(x_t, t), lambda: predict(few), lambda: predict(many), repeats=40
    )
    return float((with_many - with_few) / (many - few) / trunk)
