"""New timm networks, to be trained as tier 1: "timm:convnet16" and its like, and a small ResNet."""

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
from torch import Tensor, nn

from hybridclf.errors import UnknownSpecError, choices

from ._timm_convnet import ConvNet

__all__ = ["TimmTrainable", "load"]

SMALL = "small"
"""Name of a ResNet with less than 0.5 M parameters."""

SMALLEST = 64
"""Smallest side in pixels of that ResNet's input; smaller images are enlarged.

It shrinks an image 32 times, and on CPUs bfloat16 goes wrong for maps of a single position (torch 2.15).
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
        "convnet16", "convnet32" or "convnet64" for a small network that takes small images as they are, or "small" for
        a small ResNet.
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
        For another name.

    Examples
    --------
    >>> load("convnet16", classes=["cat", "dog"], image_size=32, mean=[128.0] * 3, scale=[64.0] * 3).classes
    ['cat', 'dog']
    """
    if name not in (*CONVNETS, SMALL):
        known = choices([f"timm:{own}" for own in (*CONVNETS, SMALL)])
        raise UnknownSpecError(f"'timm:{name}' is no new network to train; type one of: {known}")
    if name in CONVNETS:
        architecture, side = "whitened_convnet", image_size
        arguments: dict[str, Any] = {"widths": _widths(CONVNETS[name], image_size)}
    else:
        architecture, side, arguments = "resnet10t", math.ceil(SMALLEST / image_size) * image_size, RESNET
    network = timm.create_model(architecture, num_classes=len(classes), **arguments)
    network.pretrained_cfg.update(_input(side, mean, scale))
    # a layer of the network in training; the saved one gets enlarged images by its configuration
    enlarging = [nn.Upsample(size=side, mode="bilinear")] if side > image_size else []
    return TimmTrainable(nn.Sequential(*enlarging, network), list(classes), arguments)


def _widths(first: int, image_size: int) -> list[int]:
    """Channels of a `ConvNet`'s groups, for images of 32 pixels three: 16, 32, 64."""
    n_groups = max(1, int(math.log2(image_size / COARSEST)))
    return [first * 2 ** min(i, 2) for i in range(n_groups)]


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

    def load(self, folder: Path, same_classes: bool = True) -> None:
        """Load the weights that `save` wrote into a folder; of a network for other classes, all but the last layer's.

        Raises
        ------
        OSError
            If they cannot be read.
        RuntimeError
            If they belong to another network.
        """
        last: Any = self.network[-1]
        try:
            weights = load_file(folder / "model.safetensors")
        except SafetensorError as error:
            raise OSError(f"{folder / 'model.safetensors'} is damaged: {error}") from error
        if not same_classes:
            layer = f"{last.pretrained_cfg['classifier']}."
            weights |= {name: value for name, value in last.state_dict().items() if name.startswith(layer)}
        last.load_state_dict(weights)

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
