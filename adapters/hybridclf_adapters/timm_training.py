"""New timm networks, to be trained as tier 1: "timm:small", or any of timm's, such as "timm:resnet18"."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from hybridclf.errors import InvalidInputError, UnknownSpecError

__all__ = ["TimmTrainable", "load"]

SMALL = "small"
"""A batch-normalised ConvNeXt of less than 0.5 M parameters that sees images of up to 32 pixels at full resolution."""


def load(
    name: str, *, classes: Sequence[str], image_size: int, mean: Sequence[float], scale: Sequence[float]
) -> "TimmTrainable":
    """A new timm network with random weights.

    Parameters
    ----------
    name : str
        "small", or a model as timm calls it.
    classes : sequence of C str
        What its outputs stand for.
    image_size : int
        Side of its images in pixels.
    mean, scale : three floats each
        By which pixels from 0 to 255 are standardised, by channel.

    Raises
    ------
    UnknownSpecError
        If timm has no model of that name.
    InvalidInputError
        If that model takes images of one size alone.
    """
    architecture, arguments = _small(image_size) if name == SMALL else (name, {})
    if not timm.is_model(architecture):
        raise UnknownSpecError(f"timm has no model {name!r} to train; timm.list_models() lists them all")
    network = timm.create_model(architecture, num_classes=len(classes), **arguments)
    if network.pretrained_cfg.get("fixed_input_size"):
        raise InvalidInputError(
            f"timm's {name!r} takes images of one size alone; choose one for any size, such as resnet18"
        )
    network.pretrained_cfg.update(_input(image_size, mean, scale))
    return TimmTrainable(network, list(classes), arguments)


class TimmTrainable:
    """A timm network to be trained, and how it is kept.

    Parameters
    ----------
    network : nn.Module
        By `timm.create_model`, its `pretrained_cfg` saying what its input is.
    classes : list of str
        What its outputs stand for.
    arguments : dict
        What it was created with beside its name and the number of classes; plain JSON.
    """

    def __init__(self, network: nn.Module, classes: list[str], arguments: dict[str, Any]) -> None:
        self.network, self.classes, self.arguments = network, classes, arguments

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write a trained copy of the network into a folder as timm does; its spec string, "timm:local-dir:FOLDER"."""
        plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(plain, str(folder), config, self.arguments, safe_serialization=True)
        return f"timm:local-dir:{folder}"


def _small(image_size: int) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the small architecture: 32 positions a side at full resolution, at most."""
    arguments = {
        "depths": [1, 2, 2, 1],
        "dims": [32, 64, 96, 128],
        "kernel_sizes": 5,
        "patch_size": max(1, image_size // 32),
        "conv_mlp": True,
        "norm_layer": "batchnorm2d",
        "ls_init_value": 1.0,
    }
    return "convnext_atto", arguments


def _input(image_size: int, mean: Sequence[float], scale: Sequence[float]) -> dict[str, Any]:
    """What timm is to make of an image: stretched to the size, standardised; one of that size stays as it is."""
    return {
        "input_size": (3, image_size, image_size),
        "test_input_size": None,
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bilinear",
        "mean": tuple(value / 255 for value in mean),
        "std": tuple(value / 255 for value in scale),
    }
