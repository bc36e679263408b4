"""How many rows or evaluations go into a batch, and fewer when the device's memory runs out."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from ..errors import HybridClfError, InvalidInputError
from ..ports import Condition, Denoiser, Label, take
from ..utils.bounds import is_whole

__all__ = ["Batches", "check_batch_size", "default_batch_size", "timed_batch_size"]

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)

CLOSE = 0.95
"""Share of the best speed that is good enough: a shorter batch is answered sooner."""

SECONDS = 1.0
"""No longer batch is timed after one that takes longer than this."""

REPEATS = 3

_known: dict[int, int] = {}
"""Sizes by the identity of the denoiser, as long as it lives."""

GPU_ROWS = 512
"""Rows in one batch on a GPU, of images of up to 4,096 numbers; of bigger ones fewer, down to 32, which was not timed.

Of 2,048 images of 32x32 pixels, ten classes and 16 trials, `rerank` with a U-Net made 54,000 rows a second in batches
of 256 on an H200, 77,000 in batches of 512 and 82,000 in batches of 1,024 (the bare denoiser 78,000, 86,000 and
89,000). The first trial of a single image took 5 ms in batches of 256, and 8 ms in batches of 512.
"""


def default_batch_size(denoiser: Denoiser) -> int:
    """Rows (late-conditioned denoisers) or pairs (others) in one batch, by the denoiser's kind and device alone.

    A batch has to be long enough for the bookkeeping of a turn not to show, and, being padded, short enough for a
    single image not to wait for it. Without a GPU 32, and up to 128 rows of small images. On a GPU `GPU_ROWS`, or 32 to
    1,024 pairs, fewer of big images: a U-Net of Stable Diffusion 2's size, 64x64x4 latents, took an H200 2.67 ms a pair
    in batches of 32 and 2.58 in batches of 64, and a small one, 8x8x4 latents, as long for 1,024 pairs as for 32.
    Models in float64, small ones that are never padded: 256, on a GPU 1,024.
    """
    size, by_row, on_gpu = int(np.prod(denoiser.shape)), denoiser.cost_unit == "row", denoiser.device.type == "cuda"
    if denoiser.dtype == torch.float64:
        return 1024 if on_gpu else 256
    if on_gpu:
        return int(np.clip(2**21 // size, 32, GPU_ROWS)) if by_row else int(np.clip(2**19 // size, 32, 1024))
    return int(np.clip(8192 // size, 32, 128)) if by_row else 32


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
            torch.cuda.current_stream(device).synchronize()  # of the whole device would end another thread's recording
        times.append(perf_counter() - start)
    return min(times[1:])


class Batches:
    """Work in batches; when the device's memory runs out they get half the size, and keep it.

    Parameters
    ----------
    size : int
        Items in a batch, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, function: Callable[[int, int], Tensor], n_items: int) -> list[Tensor]:
        """What a function makes of n items, batch by batch.

        Parameters
        ----------
        function : function
            From a position and a size to the results `[m, …]` of the m items from that position on, as many as make
            a batch of that size.
        n_items : int
            How many items there are.

        Raises
        ------
        HybridClfError
            If not even one item fits.
        """
        results: list[Tensor] = []
        start = 0
        while start < n_items:
            try:
                results.append(function(start, self.size))
                start += len(results[-1])
            except torch.OutOfMemoryError as error:
                if self.size == 1:
                    raise HybridClfError(
                        "the device has no memory for a single item; choose another device, a smaller model or "
                        "smaller images"
                    ) from error
                self.size //= 2
        return results


def check_batch_size(batch_size: Any) -> None:
    """Check a denoiser's batch size.

    Raises
    ------
    InvalidInputError
        For anything but a whole number of at least 1, "auto" and None.
    """
    named = batch_size is None or (isinstance(batch_size, str) and batch_size == "auto")
    if not named and not is_whole(batch_size, 1):
        raise InvalidInputError(f'batch_size must be a whole number of at least 1, "auto" or None, got {batch_size!r}')
