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
from timm.models import get_pretrained_cfg, save_for_hf
from torch import nn

from hybridclf.errors import InvalidInputError, UnknownSpecError

__all__ = ["TimmTrainable", "load"]

SMALL = "small"
"""A ResNet of less than 0.5 M parameters."""

SMALLEST = 64
"""Fewest pixels a side that networks see: most make an image 32 times smaller. Smaller images are enlarged.

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
        If that model cannot be made for images of this size or larger.
    """
    architecture, arguments = ("resnet10t", RESNET) if name == SMALL else (name, {})
    if not timm.is_model(architecture):
        raise UnknownSpecError(f"timm has no model {name!r} to train; timm.list_models() lists them all")
    network, side, arguments = _made(architecture, image_size, len(classes), arguments)
    network.pretrained_cfg.update(_input(side, mean, scale))
    enlarging = [nn.Upsample(size=side, mode="bilinear")] if side > image_size else []
    return TimmTrainable(nn.Sequential(*enlarging, network), list(classes), arguments)


def _made(
    architecture: str, image_size: int, n_classes: int, arguments: dict[str, Any]
) -> tuple[Any, int, dict[str, Any]]:
    """A new network, the side of its images in pixels, and what it was created with beside the number of classes.

    A network for images of a single size is made for the first that it can take, where patches and windows fit: the
    smallest multiples of these images, then its own, which is all that some know.

    Raises
    ------
    InvalidInputError
        If it takes none of these.
    """
    smallest = math.ceil(SMALLEST / image_size) * image_size
    config = get_pretrained_cfg(architecture)
    if not (config and config.fixed_input_size):
        return timm.create_model(architecture, num_classes=n_classes, **arguments), smallest, arguments
    own = max(config.input_size[1:])
    sides = [*range(smallest, own + 1, image_size)] or [smallest]
    failures: list[Exception] = []
    for side in [*sides, own] if own > image_size else sides:
        sized = {**arguments, "img_size": side}
        try:
            network = timm.create_model(architecture, num_classes=n_classes, **sized)
            _check_passes(network, side)
        except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            failures.append(error)
        else:
            return network, side, sized
    raise InvalidInputError(
        f"timm's {architecture!r} cannot be made for images of {image_size} pixels a side ({failures[0]}); choose no "
        f"more than its own {own}, or a network for any size, such as resnet18"
    ) from failures[0]


@torch.no_grad()
def _check_passes(network: nn.Module, side: int) -> None:
    """Pass one image of so many pixels a side; whatever the network raises where they do not fit."""
    network.eval()(torch.zeros(1, 3, side, side))
    network.train()


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
        "test_crop_pct": None,
        "crop_mode": "squash",
        "interpolation": "bilinear",
        "mean": tuple(value / 255 for value in mean),
        "std": tuple(value / 255 for value in scale),
    }
