"""Batch sizes: the default by device, and halving when the device's memory runs out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HybridClfError, InvalidInputError
from ..ports import Denoiser
from ..utils.bounds import is_whole

__all__ = ["Batches", "check_batch_size", "default_batch_size"]

GPU_ROWS = 512
"""Rows in one batch on a GPU, of images of up to 4,096 numbers; of bigger ones fewer, down to 32, which was not timed.

Of 2,048 images of 32x32 pixels, ten classes and 16 trials, `rerank` with a U-Net made 54,000 rows a second in batches
of 256 on an H200, 77,000 in batches of 512 and 82,000 in batches of 1,024 (the bare denoiser 78,000, 86,000 and
89,000). The first trial of a single image took 5 ms in batches of 256, and 8 ms in batches of 512.
"""


def default_batch_size(denoiser: Denoiser) -> int:
    """Rows (late-conditioned denoisers) or evaluations (others) in one batch, by the denoiser's kind and device alone.

    A batch has to be long enough for the bookkeeping of a turn not to show, and short enough for an image that comes
    alone not to wait for it. Without a GPU: 32, up to 128 rows of small images. On a GPU: `GPU_ROWS`, or 32 to 1,024
    evaluations, fewer of big images. A U-Net of Stable Diffusion 2's size, 64x64x4 latents, took an H200 2.67 ms an
    evaluation in batches of 32 and 2.58 in batches of 64; a small one, 8x8x4 latents, as long for 1,024 evaluations as
    for 32. Small models in float64: 256, on a GPU 1,024.
    """
    size, by_row, on_gpu = int(np.prod(denoiser.shape)), denoiser.cost_unit == "row", denoiser.device.type == "cuda"
    if denoiser.dtype == torch.float64:
        return 1024 if on_gpu else 256
    if on_gpu:
        return int(np.clip(2**21 // size, 32, GPU_ROWS)) if by_row else int(np.clip(2**19 // size, 32, 1024))
    return int(np.clip(8192 // size, 32, 128)) if by_row else 32


class Batches:
    """Runs a function batch by batch; when the device's memory runs out, batches get half the size, and keep it.

    Parameters
    ----------
    size : int
        Items in a batch, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, function: Callable[[int, int], Tensor], n_items: int) -> list[Tensor]:
        """The results of a function for n items, batch by batch.

        Parameters
        ----------
        function : function
            From a position and a size to the results `[m, …]` of the m items from that position on that make a batch of
            that size.
        n_items : int
            Number of items.

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
            # the same position again, with half of the items, and so for all that follow
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
        For anything but a whole number of at least 1 and None.
    """
    if batch_size is not None and not is_whole(batch_size, 1):
        raise InvalidInputError(f"batch_size must be a whole number of at least 1 or None, got {batch_size!r}")
