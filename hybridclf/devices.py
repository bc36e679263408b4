"""Devices: their names, abilities and transfers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .errors import InvalidInputError, MissingDependencyError
from .ports import Denoiser

__all__ = [
    "as_device",
    "can_compile",
    "check_compiles",
    "has_bf16",
    "inference_dtype",
    "mixed_precision",
    "precision_of",
    "receive",
    "send",
]


def as_device(device: str) -> torch.device:
    """Resolve "auto" (a GPU if there is one) or torch's name of a device.

    Raises
    ------
    InvalidInputError
        For a name that torch does not know, or a GPU that this machine does not have.
    """
    try:
        found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise InvalidInputError(f'there is no device {device!r}; type "auto", "cpu" or "cuda"') from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError(f'device {device!r} is not there: torch finds no GPU; type "auto" or "cpu"')
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(f"device {device!r} is not there: torch finds {torch.cuda.device_count()} GPU(s)")
    return found


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bfloat16 natively, not by emulation in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # older versions of torch cannot tell, and count as incapable
    able = torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def inference_dtype(device: torch.device) -> torch.dtype:
    """Type that networks predict in by default: bfloat16 on a processor that multiplies it natively, else float32."""
    return torch.bfloat16 if device.type == "cpu" and has_bf16(device) else torch.float32


def precision_of(denoiser: Denoiser) -> str:
    """Name the type that a denoiser computes in, and what it multiplies in here if that is another."""
    own, here = (str(dtype).removeprefix("torch.") for dtype in (denoiser.dtype, inference_dtype(denoiser.device)))
    is_mixed = getattr(denoiser, "mixed", False) and own == "float32" != here
    return f"{own}, multiplied in {here}" if is_mixed else own


def mixed_precision(values: Tensor, wanted: bool) -> AbstractContextManager[Any]:
    """Multiply float32 values and weights in bfloat16, if `wanted` and where `inference_dtype` is that (autocast)."""
    faster = wanted and values.dtype == torch.float32 and inference_dtype(values.device) == torch.bfloat16
    return torch.autocast("cpu", torch.bfloat16) if faster else nullcontext()


def can_compile(device: torch.device) -> bool:
    """Tell whether torch.compile works on a device, by trying: it needs a compiler and more."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception:  # torch does not document its exceptions here
        return False
    return True


def check_compiles(device: torch.device) -> None:
    """Check that torch.compile works on a device.

    Raises
    ------
    MissingDependencyError
        If it does not.
    """
    if not can_compile(device):
        raise MissingDependencyError(
            f"nothing can be compiled for {device} here: torch.compile needs a C++ compiler, such as g++ or clang, and "
            "on a GPU triton; install it, or go on without compiling"
        )


def send(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy values of the host to a device, in another type if given, without waiting for an NVIDIA GPU."""
    values = values.to(dtype or values.dtype)
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)  # asynchronous from pinned memory alone


def receive(values: Tensor) -> Callable[[], Tensor]:
    """Start copying values to the host, and return a function that waits for this copy only.

    On the CPU nothing is copied.
    """
    if values.device.type != "cuda":
        return values.cpu
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    # an event, since a synchronization of the stream would also wait for work queued after the copy
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(values.device))

    def wait() -> Tensor:
        done.synchronize()
        return host

    return wait
