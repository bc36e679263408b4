"""Floating-point types in a diffusers pipeline: what stays in float32 beside float16, and casts between the two."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

__all__ = ["casting_latents", "is_quantised", "keep_float32", "upcast"]

_UPCASTING = Lock()
"""Lock of all VAEs while one is cast to float32."""

_SAMPLING = Lock()
"""Lock of all pipelines while one samples."""


def is_quantised(part: nn.Module) -> bool:
    """Tell whether a network's weights are quantised, as its config then says."""
    return getattr(getattr(part, "config", None), "quantization_config", None) is not None


def keep_float32(pipe: Any, dtype: torch.dtype) -> None:
    """Cast to float32 the modules that overflow in float16: some layers of T5, and a VAE with `force_upcast`."""
    if dtype != torch.float16:
        return
    for part in pipe.components.values():
        # transformers and diffusers list such modules by name
        for name in getattr(part, "_keep_in_fp32_modules", None) or ():
            for path, layer in part.named_modules():
                if name in path.split("."):
                    layer.float()
    vae = getattr(pipe, "vae", None)
    if vae is not None and vae.config.get("force_upcast"):
        vae.float()


@contextmanager
def casting_latents(pipe: Any) -> Iterator[None]:
    """Cast latents to the VAE's type before they are decoded, in a `with` block: diffusers expects one type of all.

    Threads wait for each other.
    """
    vae = getattr(pipe, "vae", None)
    if vae is None:
        yield
        return

    def cast(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        return decode(latents.to(vae.dtype), *args, **options)

    with _SAMPLING:
        decode, vae.decode = vae.decode, cast
        try:
            yield
        finally:
            del vae.decode


@contextmanager
def upcast(vae: Any) -> Iterator[None]:
    """Cast a float16 VAE that overflows to float32 in a `with` block, as diffusers does, and back afterwards.

    Threads wait for each other.
    """
    if vae is None or vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    with _UPCASTING:
        vae.float()
        try:
            yield
        finally:
            vae.half()
