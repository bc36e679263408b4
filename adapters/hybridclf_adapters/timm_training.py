"""New timm networks, to be trained as tier 1: "timm:convnet16" or, in Python, any of timm's."""

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
from torch import Tensor, nn

from hybridclf.errors import InvalidInputError, UnknownSpecError

from ._timm_convnet import ConvNet

__all__ = ["TimmTrainable", "load"]

SMALL = "small"
"""Name of a ResNet with less than 0.5 M parameters."""

SMALLEST = 64
"""Smallest side in pixels of a network's input; smaller images are enlarged.

Most networks shrink an image 32 times, and on CPUs bfloat16 goes wrong for maps of a single position (torch 2.15).
"""

RESNET: dict[str, Any] = {"channels": [32, 64, 96, 120], "stem_width": 16}
"""Widths of that ResNet. It trained at 900 images/s on one core, a ConvNeXt with depthwise convolutions at 190."""

CONVNETS = {"convnet16": 16, "convnet32": 32, "convnet64": 64}
"""Width of the first group of a `ConvNet`, by name."""

COARSEST = 4
"""Side in positions of the maps of a `ConvNet`'s last group, at least."""


def load(
    name: str, *, classes: Sequence[str], image_size: int, mean: Sequence[float], scale: Sequence[float]
) -> "TimmTrainable":
    """Make a new timm network with random weights.

    Parameters
    ----------
    name : str
        "convnet16", "convnet32" or "convnet64" for a small network that takes small images as they are, "small" for a
        small ResNet, or timm's name of a model.
    classes : sequence of C str
        Labels of the outputs.
    image_size : int
        Side of the images in pixels.
    mean, scale : three floats each
        Mean and standard deviation of the channels, of pixels from 0 to 255.

    Returns
    -------
    TimmTrainable

    Raises
    ------
    UnknownSpecError
        If timm has no model of this name.
    InvalidInputError
        If the model cannot be made for images of this size or larger.

    Examples
    --------
    >>> load("convnet16", classes=["cat", "dog"], image_size=32, mean=[128.0] * 3, scale=[64.0] * 3).classes
    ['cat', 'dog']
    """
    if name in CONVNETS:
        arguments = {"widths": _widths(CONVNETS[name], image_size)}
        network = timm.create_model("whitened_convnet", num_classes=len(classes), **arguments)
        network.pretrained_cfg.update(_input(image_size, mean, scale))
        return TimmTrainable(nn.Sequential(network), list(classes), arguments)
    architecture, arguments = ("resnet10t", RESNET) if name == SMALL else (name, {})
    if not timm.is_model(architecture):
        raise UnknownSpecError(f"timm has no model {name!r} to train; timm.list_models() lists them all")
    network, side, arguments = _made(architecture, image_size, len(classes), arguments)
    network.pretrained_cfg.update(_input(side, mean, scale))
    # a layer of the network in training; the saved one gets enlarged images by its configuration
    enlarging = [nn.Upsample(size=side, mode="bilinear")] if side > image_size else []
    return TimmTrainable(nn.Sequential(*enlarging, network), list(classes), arguments)


def _widths(first: int, image_size: int) -> list[int]:
    """Channels of a `ConvNet`'s groups, for images of 32 pixels three: 16, 32, 64."""
    n_groups = max(1, int(math.log2(image_size / COARSEST)))
    return [first * 2 ** min(i, 2) for i in range(n_groups)]


def _made(
    architecture: str, image_size: int, n_classes: int, arguments: dict[str, Any]
) -> tuple[Any, int, dict[str, Any]]:
    """Make a network, and return it with the side of its images in pixels and its arguments.

    A network for a single image size is made for the first size that fits its patches and windows: multiples of the
    image size from the smallest on, then its own size, as some networks accept no other.

    Raises
    ------
    InvalidInputError
        If no size fits.
    """
    smallest = math.ceil(SMALLEST / image_size) * image_size
    config = get_pretrained_cfg(architecture)
    # convolutions take any size
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
    """Run a network on one image of a size, which raises if it does not fit."""
    network.eval()(torch.zeros(1, 3, side, side))
    network.train()


class TimmTrainable:
    """Trainable port of a timm network.

    Parameters
    ----------
    network : nn.Sequential
        Network whose last module is by `timm.create_model`, with a `pretrained_cfg` of its input.
    classes : list of str
        Labels of the outputs.
    arguments : dict
        Arguments of `timm.create_model` except the name and the number of classes; plain JSON.
    """

    def __init__(self, network: nn.Sequential, classes: list[str], arguments: dict[str, Any]) -> None:
        self.network, self.classes, self.arguments = network, classes, arguments

    def prepare(self, images: Tensor, mirrored: bool) -> None:
        """Fit what a network has that follows from the images alone: the stem of a `ConvNet`, and its mirrored view."""
        *_, last = self.network.children()
        if isinstance(last, ConvNet):
            last.whiten(images)
            last.mirrored = self.arguments["mirrored"] = mirrored

    def load(self, folder: Path) -> None:
        """Load the weights that `save` wrote into a folder.

        Raises
        ------
        OSError
            If they cannot be read.
        RuntimeError
            If they belong to another network.
        """
        *_, last = self.network.children()
        try:
            last.load_state_dict(load_file(folder / "model.safetensors"))
        except SafetensorError as error:
            raise OSError(f"{folder / 'model.safetensors'} is damaged: {error}") from error

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write a trained copy of the network into a folder in timm's format, its parameters in half precision.

        Returns
        -------
        str
            Spec string "timm:local-dir:FOLDER".
        """
        *_, last = network.children()
        # the training goes on with the original in float32
        plain = copy.deepcopy(last).cpu().to(memory_format=torch.contiguous_format)
        for parameter in plain.parameters():  # buffers stay: running variances may be too small for float16
            parameter.data = parameter.data.half()
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(plain, str(folder), config, self.arguments, safe_serialization=True)
        return f"timm:local-dir:{folder}"


def _input(image_size: int, mean: Sequence[float], scale: Sequence[float]) -> dict[str, Any]:
    """Configuration of timm's image preparation: stretch to the size and standardise; no crop."""
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
