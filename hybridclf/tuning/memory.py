"""Memory of a training step: measured on one image, and fitted into what is free."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError

__all__ = ["choose_micro_batch"]

USED = 0.8
"""Share of the free memory that a step may take."""


def choose_micro_batch(loss: Callable[[Tensor], Tensor], n: int, device: torch.device, save: Callable[[], None]) -> int:
    """Choose how many of n images a forward and backward pass takes, within the memory that is free.

    Parameters
    ----------
    loss : function
        From positions of images `[B]` to their loss, with gradients.
    n : int
        Images of a step.
    device : torch.device
        Device of the network.
    save : function
        Makes the loss keep fewer activations; called if one image does not fit otherwise.

    Raises
    ------
    TrainingError
        If one image does not fit even so.
    """
    free = USED * _free_bytes(device)
    each = _saved_bytes(loss)
    if each > free:
        save()
        each = _saved_bytes(loss)
    if each > free:
        raise TrainingError(
            f"an image takes {each / 2**30:.1f} GiB of activations, and {free / 2**30:.1f} GiB are left for them on "
            f"{device}; give the denoiser a lower resolution ('diffusers:NAME?resolution=256', a quarter of that at "
            "half the side), precision=bf16, or a device with more memory"
        )
    return int(max(1, min(n, free // max(1, each))))


def _saved_bytes(loss: Callable[[Tensor], Tensor]) -> int:
    """Bytes of the activations that one image's loss keeps for its gradient, each storage counted once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept: Any = loss(torch.zeros(1, dtype=torch.long))
    del kept  # only now: freed storages would share addresses
    return sum(sizes.values())


def _free_bytes(device: torch.device) -> float:
    """Free memory of a device, what the system would give back included; infinite where the system does not say."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    information = Path("/proc/meminfo")
    if information.exists():  # free pages alone are few after gigabytes of weights were read
        lines = dict(line.split(":", 1) for line in information.read_text(encoding="ascii").splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")
