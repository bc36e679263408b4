"""The batch size at which a denoiser is as fast as it gets, by a short timing."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from weakref import finalize

import torch

from .ports import Condition, Denoiser, Label, take

__all__ = ["timed_batch_size"]

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)

CLOSE = 0.95
"""Share of the best speed that is good enough: a shorter batch is answered sooner."""

SECONDS = 1.0
"""Longest that one batch may take."""

REPEATS = 3

_known: dict[int, int] = {}
"""Sizes by the identity of the denoiser, as long as it lives."""


def timed_batch_size(denoiser: Denoiser, label: Label) -> int:
    """The smallest batch size, of powers of two from 8 to 1024, at which a denoiser is nearly as fast as at any.

    Sizes grow until a batch takes longer than a second, or the device's memory runs out. Timed once for each denoiser.
    Another run may come to another size, and sizes differ in the last digits of an error: where answers have to repeat
    to the last bit, set the size.

    Parameters
    ----------
    denoiser : Denoiser
        What is timed.
    label : label
        One that it knows.

    Returns
    -------
    int
        Rows or pairs in a batch, by its `cost_unit`.
    """
    if id(denoiser) not in _known:
        condition = denoiser.condition([label])
        speeds: dict[int, float] = {}
        for size in SIZES:
            try:
                seconds = _seconds(partial(_predict, denoiser, condition, size), denoiser.device)
            except torch.OutOfMemoryError:
                break
            speeds[size] = size / seconds
            if seconds > SECONDS:
                break
        enough = CLOSE * max(speeds.values(), default=0.0)
        _known[id(denoiser)] = next((size for size, speed in speeds.items() if speed >= enough), 1)
        finalize(denoiser, _known.pop, id(denoiser))
    return _known[id(denoiser)]


@torch.inference_mode()
def _predict(denoiser: Denoiser, condition: Condition, size: int) -> None:
    """One batch of noise."""
    x_t = torch.zeros(size, *denoiser.shape, dtype=denoiser.dtype, device=denoiser.device)
    t = torch.full((size,), 0.5, dtype=torch.promote_types(denoiser.dtype, torch.float32), device=denoiser.device)
    first = torch.zeros(size, dtype=torch.long)
    denoiser.predict(x_t, t, torch.arange(size, device=denoiser.device), take(condition, first))


def _seconds(function: Callable[[], None], device: torch.device) -> float:
    """The shortest of a few calls; the first one, which may load and compile, does not count."""
    times: list[float] = []
    while len(times) < 1 + REPEATS and not (times[1:] and times[-1] > SECONDS):
        start = perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - start)
    return min(times[1:])
