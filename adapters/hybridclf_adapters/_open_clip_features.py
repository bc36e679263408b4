"""Image features of open_clip models, and their image towers with a linear classifier of these."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridclf.data.arrays import as_pil
from hybridclf.data.decoding import convert
from hybridclf.errors import InvalidInputError

from ._image_proposer import ImageProposer
from ._pixel_network import PixelNetwork

__all__ = ["HEAD", "LABELS", "OpenClipFeatures", "OpenClipFineTunable", "check_text_tower"]

HEAD, LABELS = "head.safetensors", "head.json"
"""Files of the classifier beside those of the model: its weights, and the names of its classes."""

WHOLE_IMAGE = {"resize_mode": "squash"}
"""Change of open_clip's preprocessing by which all of an image is seen, stretched to the model's size."""


STEM = (
    r"^visual\.(?:class_embedding|positional_embedding|ln_pre|conv\d|bn\d"
    r"|trunk\.(?:patch_embed|cls_token|reg_token|pos_embed|norm_pre|stem|conv|bn))"
)
BLOCKS = r"^visual\.(?:transformer\.resblocks\.|layer|trunk\.(?:blocks\.|stages\.|layers\.|layer))(\d+)"
"""Names of parameters in the first layer, and in blocks by number: vision transformers, ResNets and timm's towers."""


class HeadedTower(nn.Module):
    """Image tower of an open_clip model, and a linear classifier of its normalised features.

    Parameters
    ----------
    visual : nn.Module
        The tower.
    weight, bias : float array `[C, d]`, `[C]`
        The classifier.
    """

    def __init__(self, visual: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.visual, self.head = visual, nn.Linear(*weight.shape[::-1])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))

    @staticmethod
    def group_matcher(coarse: bool) -> dict[str, str]:
        """Layers of open_clip's towers, as timm counts them by the parameters' names; the rest is the last layer."""
        return {"stem": STEM, "blocks": BLOCKS}

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits `[B, C]` of the model's images."""
        features = self.visual(pixels)
        # CoCa's tower returns the features and those of all tokens
        return self.head(normalize(features[0] if isinstance(features, tuple) else features, dim=-1))


class OpenClipFineTunable:
    """Copy of an open_clip model's image tower with a classifier of its features; see `FineTunable`.

    Parameters
    ----------
    model : nn.Module
        open_clip's model.
    config : dict
        open_clip's configuration of it.
    weight, bias, classes
        As in `OpenClipHeadProposer`.

    Raises
    ------
    InvalidInputError
        As `check_text_tower` does.
    """

    def __init__(
        self, model: Any, config: dict[str, Any], weight: np.ndarray, bias: np.ndarray, classes: Sequence[str]
    ) -> None:
        from open_clip.transform import PreprocessCfg

        check_text_tower(config)
        self.model, self.config, self.classes = model, config, list(classes)
        prepared = PreprocessCfg(**model.visual.preprocess_cfg)
        size = (prepared.size, prepared.size) if isinstance(prepared.size, int) else tuple(prepared.size)
        tower = HeadedTower(copy.deepcopy(model.visual), weight, bias)
        self.network = PixelNetwork(tower, size, prepared.mean, prepared.std, prepared.interpolation)

    def learning_rates(self, decay: float, lowest: float) -> Mapping[str, float]:
        """Factors on the learning rate; see `FineTunable`."""
        return self.network.learning_rates(decay, lowest)

    def save(self, network: nn.Module, folder: Path) -> str:
        """Write the model with this tower and its classifier into a folder; see `FineTunable`."""
        tower = cast(PixelNetwork, network).network
        folder.mkdir(parents=True)
        # as the features are computed: of the whole image
        described = {
            "model_cfg": self.config,
            "preprocess_cfg": dict(self.model.visual.preprocess_cfg) | WHOLE_IMAGE,
        }
        (folder / "open_clip_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        trained = {f"visual.{name}": value for name, value in tower.visual.state_dict().items()}
        save_file(_plain(self.model.state_dict() | trained), folder / "open_clip_model.safetensors")
        save_file(_plain(tower.head.state_dict()), folder / HEAD)
        (folder / LABELS).write_text(json.dumps(self.classes), encoding="utf-8")
        return f"open_clip:local-dir:{folder}"


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


class OpenClipFeatures(ImageProposer):
    """Proposer of an open_clip model whose image features a new classifier can be fitted on; see `FeatureModel`.

    Parameters
    ----------
    model, transform, dtype, batch_size
        As in `ImageProposer`.
    config : dict
        open_clip's configuration of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        dtype: torch.dtype,
        batch_size: int | None,
        config: dict[str, Any],
    ) -> None:
        super().__init__(model, transform, dtype, batch_size)
        self.config = config

    @property
    def feature_side(self) -> int:
        """Side in pixels to which images are resized."""
        return int(np.max(self.model.visual.image_size))

    @torch.inference_mode()
    def features(self, images: Any) -> np.ndarray:
        """Compute the normalised image features; see `FeatureModel`."""
        parts = self.batches(lambda start, size: self._image_features(images[start : start + size]), len(images))
        return torch.cat(parts).numpy()

    def _image_features(self, images: Any) -> Tensor:
        pixels = torch.stack([self._whole_image(convert(as_pil(image), self.mode)) for image in images])
        return self._embeddings(pixels.to(self.device, self.dtype)).cpu()

    def _embeddings(self, pixels: Tensor) -> Tensor:
        """Compute normalised features `[b, d]`, float32, of the model's input `[b, 3, H, W]`."""
        return normalize(self.model.encode_image(pixels).float(), dim=-1)

    @cached_property
    def _whole_image(self) -> Callable[[Image.Image], Tensor]:
        """Preprocessing of the model that stretches all of an image to its size."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(**self.model.visual.preprocess_cfg | WHOLE_IMAGE)
        return cast(Callable[[Image.Image], Tensor], image_transform_v2(config, is_train=False))

    def check_head(self) -> None:
        """Check that the model can be saved with a new classifier; see `FeatureModel`."""
        check_text_tower(self.config)

    def with_head(self, weight: np.ndarray, bias: np.ndarray, classes: Sequence[str]) -> OpenClipFineTunable:
        """Copy the image tower, with a linear classifier of its features; see `FeatureModel`."""
        return OpenClipFineTunable(self.model, self.config, weight, bias, classes)


def check_text_tower(config: dict[str, Any]) -> None:
    """Check that a saved model can be loaded without the hub.

    Raises
    ------
    InvalidInputError
        If the model's text tower can only be made with the hub.
    """
    if config["text_cfg"].get("hf_model_name"):
        raise InvalidInputError(
            f"the text tower of this model is {config['text_cfg']['hf_model_name']!r} on the hub, without which the "
            "trained folder could not be loaded; choose a model with a tower of open_clip's own, such as ViT-B-32"
        )
