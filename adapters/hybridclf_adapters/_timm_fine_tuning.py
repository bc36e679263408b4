"""Copy of a timm classifier with a new linear classifier, to be saved or trained further."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.layers import DropPath
from timm.models import save_for_hf
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.transforms.functional import rgb_to_grayscale

from hybridclf.errors import InvalidInputError

from ._timm_features import WHOLE_IMAGE

__all__ = ["TimmFineTunable"]

FIXED = (_BatchNorm, _DropoutNd, DropPath)
"""Modules that stay as in evaluation: statistics of a few images are no better, and dropout draws random numbers."""


class TimmFineTunable:
    """Copy of a timm network with a new linear classifier of its features.

    Parameters
    ----------
    model : nn.Module
        timm's model.
    mode : "RGB" or "L"
        Mode of the model's images.
    arguments : dict
        Further arguments of `timm.create_model` that it was made with.
    weight, bias : float array `[C, d]`, `[C]`
        Classifier of the features.
    classes : sequence of C str
        Names of the classes.

    Attributes
    ----------
    network : nn.Sequential
        Network from uint8 images `[B, S, S, 3]` to logits `[B, C]`, in float32 on the CPU.

    Raises
    ------
    InvalidInputError
        If the model's classifier is no single linear layer of these features.
    """

    def __init__(
        self,
        model: Any,
        mode: str,
        arguments: dict[str, Any],
        weight: np.ndarray,
        bias: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        self.arguments, self.classes = arguments, list(classes)
        own = _plain(model)
        own.reset_classifier(len(classes))
        layer = own.get_classifier()
        if not isinstance(layer, nn.Linear) or layer.weight.shape != weight.shape:
            raise InvalidInputError(
                f"the classifier of {model.pretrained_cfg.get('architecture')!r} is no linear layer of its "
                f"{weight.shape[1]} features, as a new one needs; choose another model, such as resnet18.a1_in1k"
            )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        own.pretrained_cfg = own.pretrained_cfg | WHOLE_IMAGE
        self.network = _Network(_Preparation(resolve_model_data_config(own), mode), own.requires_grad_(True))

    def parameter_groups(self, weight_decay: float, layer_decay: float, smallest: float) -> list[dict[str, Any]]:
        """Group the parameters by layer, as `FineTunable` says; biases and norms have no weight decay."""
        options = {"weight_decay": weight_decay, "layer_decay": layer_decay, "min_scale": smallest}
        groups = param_groups_layer_decay(self.network[1], **options)
        return [{name: group[name] for name in ("params", "weight_decay", "lr_scale")} for group in groups]

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write the network, or a trained copy of it, into a new folder in timm's format."""
        *_, trained = network.children()
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(_plain(trained), str(folder), config, self.arguments, safe_serialization=True)
        return f"timm:local-dir:{folder}"


class _Network(nn.Sequential):
    """Modules of which some, `FIXED`, are never in training."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, FIXED):
                module.eval()
        return self


class _Preparation(nn.Module):
    """Preparation of uint8 images `[B, S, S, 3]` for a network, by its data configuration."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: dict[str, Any], mode: str) -> None:
        super().__init__()
        self.size, self.interpolation = tuple(config["input_size"][1:]), config["interpolation"]
        self.is_grey = mode == "L"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Stretch to the network's size, and standardise: `[B, 3 or 1, H, W]`."""
        x = pixels.permute(0, 3, 1, 2).float() / 255
        if x.shape[2:] != self.size:
            mode = self.interpolation if self.interpolation in ("bilinear", "bicubic") else "bicubic"
            x = F.interpolate(x, self.size, mode=mode, antialias=True).clamp(0, 1)
        if self.is_grey:
            x = rgb_to_grayscale(x)
        return (x - self.mean) / self.std


def _plain(model: nn.Module) -> Any:
    """Copy a model in float32, on the CPU, in the usual layout of memory."""
    return copy.deepcopy(model).float().cpu().to(memory_format=torch.contiguous_format)
