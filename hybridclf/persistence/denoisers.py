"""Saving of a trained denoiser: its description as JSON, its weights as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from ..models import LateConditionedDenoiser, build
from .labels import describe_labels, restore_labels

__all__ = ["denoiser_weights", "describe_denoiser", "restore_denoiser"]


def describe_denoiser(denoiser: LateConditionedDenoiser) -> dict[str, Any]:
    """The denoiser with its own classes: a given denoiser may know others than the classifier, or in another order."""
    return {
        "network": denoiser.network.config,
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "mirror": denoiser.mirror,
        "shrink": denoiser.shrink,
        "mixed": denoiser.mixed,
        "classes": describe_labels(denoiser.classes),
    }


def denoiser_weights(denoiser: LateConditionedDenoiser) -> dict[str, np.ndarray]:
    """Weights in the shortest type that loses nothing; the scaling in float64."""
    weights = {name: value.cpu() for name, value in denoiser.network.state_dict().items()}
    dtype = next(
        dtype
        for dtype in (torch.float16, torch.float32, torch.float64)
        if dtype == torch.float64 or all(torch.equal(w.to(dtype).to(w.dtype), w) for w in weights.values())
    )
    arrays = {name: w.to(dtype).numpy() for name, w in weights.items()}
    return arrays | {"mean": denoiser.mean, "scale": denoiser.scale}


def restore_denoiser(folder: Path, saved: dict[str, Any], device: torch.device) -> LateConditionedDenoiser:
    """The denoiser that a saved model's description speaks of, from the folder."""
    classes = restore_labels(saved["classes"])
    tensors = load_file(folder / "denoiser.safetensors")
    mean, scale = tensors.pop("mean"), tensors.pop("scale")
    network = build(saved["network"])
    dtype = getattr(torch, saved["dtype"])
    network.to(dtype).load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    views = {"mirror": saved.get("mirror", False), "shrink": saved.get("shrink", 1), "mixed": saved.get("mixed", False)}
    return LateConditionedDenoiser(network, classes, mean, scale, dtype, device, **views)
