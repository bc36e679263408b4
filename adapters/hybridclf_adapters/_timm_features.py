"""Features of a timm classifier, and the same network with a new linear classifier, to be saved or trained further."""

import copy
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torchvision.transforms.functional import rgb_to_grayscale

from hybridclf.data.arrays import as_pil, convert
from hybridclf.errors import InvalidInputError

__all__ = ["FeatureExtractor", "FineTunable", "model_arguments"]

WHOLE_IMAGE: dict[str, Any] = {
    "crop_mode": "squash",
    "crop_pct": 1.0,
    "test_crop_pct": None,
    "test_input_size": None,
}
"""Changes of timm's configuration by which all of an image is seen, stretched to the size of training.

A user's images need not have their object in the middle, where timm's crop for ImageNet looks for it.
"""


LAYER_DECAY = 0.75
"""Factor on the learning rate from one layer to the one before it (arXiv 2106.08254)."""


class FeatureExtractor:
    """Extractor of a network's features of whole images, those that its last linear layer sees.

    Parameters
    ----------
    model : nn.Module
        timm's model, in evaluation.
    mode : "RGB" or "L"
        Mode of the model's images.

    Attributes
    ----------
    side : int
        Longer side in pixels of the model's input.
    """

    def __init__(self, model: Any, mode: str) -> None:
        self.model, self.mode = model, mode
        config = resolve_model_data_config(model, pretrained_cfg=model.pretrained_cfg | WHOLE_IMAGE)
        self.side = max(config["input_size"][1:])
        self._transform: Any = create_transform(**config)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image | np.ndarray], dtype: torch.dtype) -> Tensor:
        """Compute the features of images, float32 `[n, d]` on the CPU."""
        pixels = torch.stack([self._transform(convert(as_pil(image), self.mode)) for image in images])
        pixels = pixels.to(next(self.model.parameters()).device, dtype, memory_format=torch.channels_last)
        maps = self.model.forward_features(pixels)
        return self.model.forward_head(maps, pre_logits=True).float().cpu()


class FineTunable:
    """Copy of a network with a new linear classifier of its features, to be saved or trained further.

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
        From uint8 images `[B, S, S, 3]` to logits `[B, C]`; statistics of batch normalisation stay as they are.
    rates : dict of str to float
        Factors on the learning rate: `LAYER_DECAY` for each layer between the parameter and the classifier.

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
        self.network = _FixedStatistics(_Preparation(resolve_model_data_config(own), mode), own.requires_grad_(True))

    @cached_property
    def rates(self) -> dict[str, float]:
        groups = param_groups_layer_decay(self.network[1], layer_decay=LAYER_DECAY)
        scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
        return {name: scale[id(parameter)] for name, parameter in self.network.named_parameters()}

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write the network, or a trained copy of it, into a new folder in timm's format."""
        *_, trained = network.children()
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(_plain(trained), str(folder), config, self.arguments, safe_serialization=True)
        return f"timm:local-dir:{folder}"


class _FixedStatistics(nn.Sequential):
    """Modules whose batch normalisation keeps its statistics in training, too: those of a few images are no better."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
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
    """A copy of a model in float32, on the CPU, in the usual layout of memory."""
    return copy.deepcopy(model).float().cpu().to(memory_format=torch.contiguous_format)


def model_arguments(spec: str) -> dict[str, Any]:
    """Arguments of the network in a folder that `save_for_hf` wrote, except its number of classes; {} for others."""
    path = Path(spec.removeprefix("local-dir:"), "config.json")
    if not spec.startswith("local-dir:"):
        return {}
    arguments = json.loads(path.read_text(encoding="utf-8")).get("model_args") or {}
    return {name: value for name, value in arguments.items() if name != "num_classes"}
