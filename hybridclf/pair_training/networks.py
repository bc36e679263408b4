"""New networks of both tiers, for the images and the device of a training."""

from collections.abc import Mapping
from typing import Any, cast

import torch

from .. import plugins
from ..models import LateUNet
from ..models.factory import build
from ..ports import Trainable
from .start_from import Start
from .training_data import TrainingData

__all__ = ["new_trainable", "new_unet", "same_unet", "started_unet"]

PROPOSERS = ("timm:convnet16", "timm:convnet32", "timm:convnet64")
"""Networks of tier 1 from the smallest on, as spec strings of the entry-point group `hybridclf.trainables`."""

PREPARED_ON = 2000
"""About as many training images may a new proposer see before its training."""

UNET: dict[str, Any] = {"levels": 3, "attention": True}
"""Arguments of tier 2's U-Net, except its widths, depth and patch size."""

WIDTHS = (16, 32, 64)
"""Channels of the U-Net at full resolution, from the smallest network on."""

HEAD_WIDTH = 32
"""Most channels of the U-Net's head."""

DEPTH = {"cpu": 1, "cuda": 2}
"""Residual blocks of the U-Net per resolution, by training device.

Two take 1.6 times the FLOPs of one, and a CPU sees few images in an hour as it is.
"""

GRID = 16
"""Patches per side of an image, which decides the U-Net's patch size."""

CLASS_TABLE = "modulation.table.weight"
"""Name of the U-Net's weights by class."""


def new_trainable(data: TrainingData, spec: str) -> Trainable:
    """Make a new classifier for these images; the seed decides its weights, or the pair to start from has them."""
    # adapters draw from torch's global generator, which is restored afterwards
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.settings.seed)
        made: Trainable = plugins.load(
            "trainable",
            spec,
            classes=data.classes.tolist(),
            image_size=data.settings.image_size,
            mean=data.mean.tolist(),
            scale=data.scale.tolist(),
        )
        if hasattr(made, "prepare"):
            some = data.pixels[:: max(1, len(data.pixels) // PREPARED_ON)]  # of every class, in whatever order
            made.prepare(data.encode(some).cpu(), data.mirror)
    if data.start is not None and data.start.proposer == spec:
        data.start.load_proposer(made)
    return made


def new_unet(data: TrainingData, width: int) -> LateUNet:
    """Make a new U-Net for these images and this device; the seed decides its weights."""
    config = {
        "kind": "unet",
        "shape": data.shape,
        "n_classes": len(data.classes),
        "width": width,
        "head_width": min(width, HEAD_WIDTH),
        "patch": max(1, data.settings.image_size // GRID),
        "depth": DEPTH.get(data.device.type, 1),
    }
    return same_unet(data, config | UNET)


def started_unet(data: TrainingData, start: Start) -> LateUNet:
    """Make a U-Net of the size and with the weights of the pair to start from, but for a new table of other classes."""
    earlier = start.denoiser()
    network = same_unet(data, earlier.config | {"n_classes": len(data.classes)})
    weights = earlier.state_dict()
    if not start.same_classes:
        weights[CLASS_TABLE] = network.state_dict()[CLASS_TABLE]
    network.load_state_dict(weights)
    return network


def same_unet(data: TrainingData, config: Mapping[str, Any]) -> LateUNet:
    """Make a U-Net of this configuration; the seed decides its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.settings.seed)
        return cast(LateUNet, build(dict(config)))
