"""New timm networks, to be trained as tier 1: "timm:small", or any of timm's, such as "timm:resnet18"."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import nn

from hybridclf.errors import InvalidInputError, UnknownSpecError

__all__ = ["TimmTrainable", "load"]

SMALL = "small"
"""A ResNet of less than 0.5 M parameters."""

SMALLEST = 64
"""Fewest pixels a side that networks see: most make an image 32 times smaller. Images are enlarged by whole factors.

On CPUs bfloat16 goes wrong where a map is a single position (torch 2.15).
"""

RESNET: dict[str, Any] = {"channels": [32, 64, 96, 120], "stem_width": 16}
"""Its widths. Its plain convolutions trained at 900 images/s on one core, those by channel of a ConvNeXt at 190."""


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
    architecture, arguments = ("resnet10t", RESNET) if name == SMALL else (name, {})
    if not timm.is_model(architecture):
        raise UnknownSpecError(f"timm has no model {name!r} to train; timm.list_models() lists them all")
    network = timm.create_model(architecture, num_classes=len(classes), **arguments)
    if network.pretrained_cfg.get("fixed_input_size"):
        raise InvalidInputError(
            f"timm's {name!r} takes images of one size alone; choose one for any size, such as resnet18"
        )
    zoom = math.ceil(SMALLEST / image_size)
    network.pretrained_cfg.update(_input(zoom * image_size, mean, scale))
    enlarging = [nn.Upsample(scale_factor=zoom, mode="bilinear")] if zoom > 1 else []
    return TimmTrainable(nn.Sequential(*enlarging, network), list(classes), arguments)


class TimmTrainable:
    """A timm network to be trained, and how it is kept.

    Parameters
    ----------
    network : nn.Sequential
        Its last by `timm.create_model`, with a `pretrained_cfg` that says what that one's input is.
    classes : list of str
        What its outputs stand for.
    arguments : dict
        What it was created with beside its name and the number of classes; plain JSON.
    """

    def __init__(self, network: nn.Sequential, classes: list[str], arguments: dict[str, Any]) -> None:
        self.network, self.classes, self.arguments = network, classes, arguments

    def load(self, folder: Path) -> None:
        """Give the network the weights that `save` wrote into a folder.

        Raises
        ------
        OSError
            If they cannot be read.
        RuntimeError
            If they are another network's.
        """
        *_, last = self.network.children()
        try:
            last.load_state_dict(load_file(folder / "model.safetensors"))
        except SafetensorError as error:
            raise OSError(f"{folder / 'model.safetensors'} is damaged: {error}") from error

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write a trained copy of the network into a folder as timm does, its parameters in half precision.

        Returns its spec string, "timm:local-dir:FOLDER".
        """
        *_, last = network.children()
        plain = copy.deepcopy(last).cpu().to(memory_format=torch.contiguous_format)
        for parameter in plain.parameters():  # running variances could be too small
            parameter.data = parameter.data.half()
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(plain, str(folder), config, self.arguments, safe_serialization=True)
        return f"timm:local-dir:{folder}"


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
