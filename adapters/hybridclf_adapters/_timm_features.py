"""Features of a timm classifier, and the same network with a new linear classifier as a folder in timm's format."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn

from hybridclf.data.arrays import as_pil
from hybridclf.data.decoding import convert
from hybridclf.errors import InvalidInputError

from ._pixel_network import PixelNetwork

__all__ = ["FeatureExtractor", "TimmFineTunable", "check_head"]

WHOLE_IMAGE: dict[str, Any] = {
    "crop_mode": "squash",
    "crop_pct": 1.0,
    "test_crop_pct": None,
    "test_input_size": None,
}
"""Changes of timm's configuration by which all of an image is seen, stretched to the size of training.

A user's images need not have their object in the middle, where timm's crop for ImageNet looks for it.
"""


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


class TimmFineTunable:
    """Copy of a timm network with a new linear classifier, for whole images; see `FineTunable`.

    Parameters
    ----------
    model : nn.Module
        timm's model.
    weight, bias : float array `[C, d]`, `[C]`
        Classifier of the features.
    classes : sequence of C str
        Names of the classes.

    Raises
    ------
    InvalidInputError
        If the model's classifier is no single linear layer of these features.
    """

    def __init__(self, model: Any, weight: np.ndarray, bias: np.ndarray, classes: Sequence[str]) -> None:
        plain, layer = _with_new_classifier(model, *weight.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        plain.pretrained_cfg = plain.pretrained_cfg | WHOLE_IMAGE
        config = resolve_model_data_config(plain)
        size = config["input_size"][1:]
        self.network = PixelNetwork(plain, size, config["mean"], config["std"], config["interpolation"])
        self.classes = list(classes)

    def learning_rates(self, decay: float, lowest: float) -> Mapping[str, float]:
        """Factors on the learning rate; see `FineTunable`."""
        return self.network.learning_rates(decay, lowest)

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write the network, or a trained copy, into a folder in timm's format; see `FineTunable`."""
        plain = copy.deepcopy(cast(PixelNetwork, network).network).cpu().to(memory_format=torch.contiguous_format)
        config = {"num_classes": len(self.classes), "label_names": self.classes}
        save_for_hf(plain, str(folder), config, safe_serialization=True)
        return f"timm:local-dir:{folder}"


def check_head(model: Any, n_features: int) -> None:
    """Check that a model with a new linear classifier of its features answers by that alone.

    Raises
    ------
    InvalidInputError
        As `TimmFineTunable` does, and if more than this layer makes up the answer.
    """
    plain, layer = _with_new_classifier(model, 2, n_features)
    config = resolve_model_data_config(plain)
    pixels = torch.randn(1, *config["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = plain.forward_head(plain.forward_features(pixels), pre_logits=True)
        difference = (plain(pixels) - layer(features)).abs().max()
    if difference > 1e-3:
        raise _unusable(model, n_features)


def _with_new_classifier(model: Any, n_classes: int, n_features: int) -> tuple[Any, nn.Linear]:
    """A copy of a model with another classifier, and that layer.

    Raises
    ------
    InvalidInputError
        If it is no single linear layer of so many features.
    """
    plain = copy.deepcopy(model).float().cpu().to(memory_format=torch.contiguous_format)
    plain.reset_classifier(n_classes)
    plain.eval()  # the new layers, too
    layer = plain.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.weight.shape != (n_classes, n_features):
        raise _unusable(model, n_features)
    return plain, layer


def _unusable(model: Any, n_features: int) -> InvalidInputError:
    return InvalidInputError(
        f"the classifier of {model.pretrained_cfg.get('architecture')!r} is no linear layer of its {n_features} "
        "features, as a new one needs; choose another model, such as resnet18.a1_in1k"
    )
