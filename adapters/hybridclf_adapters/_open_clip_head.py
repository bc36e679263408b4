"""Linear classifier on the image features of an open_clip model, in the model's folder."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridclf.errors import InvalidInputError, SavedModelError, UnknownLabelError, choices

from ._image_proposer import ImageProposer, labels_of
from ._pixel_network import PixelNetwork

__all__ = [
    "WHOLE_IMAGE",
    "OpenClipFineTunable",
    "OpenClipHeadProposer",
    "check_text_tower",
    "has_head",
    "load_head",
]

HEAD, LABELS = "head.safetensors", "head.json"
"""Files of the classifier beside those of the model: its weights, and the names of its classes."""


class OpenClipHeadProposer(ImageProposer):
    """Proposer of a linear classifier on the normalised image features of an open_clip model.

    Parameters
    ----------
    model, transform, dtype, batch_size
        As in `ImageProposer`.
    weight, bias : Tensor `[C, d]`, `[C]`
        Classifier of the features.
    names : list of C str
        Names of its classes.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        dtype: torch.dtype,
        batch_size: int,
        weight: Tensor,
        bias: Tensor,
        names: list[str],
    ) -> None:
        super().__init__(model, transform, dtype, batch_size)
        self.weight, self.bias, self.names = weight.to(self.device), bias.to(self.device), names
        self.classes_, self._columns = np.asarray(names), list(range(len(names)))

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose among the classes; nothing is trained.

        Raises
        ------
        UnknownLabelError
            For an unknown class.
        """
        labels = np.asarray(self.names) if X is None and y is None else labels_of(X, y)
        unknown = [label for label in labels.tolist() if label not in self.names]
        if unknown:
            raise UnknownLabelError(f"the model has no class {unknown[0]!r}; it has {choices(self.names)}")
        self.classes_, self._columns = labels, [self.names.index(label) for label in labels.tolist()]
        return self

    def _logits(self, pixels: Tensor) -> Tensor:
        features = normalize(self.model.encode_image(pixels).float(), dim=-1)
        # the model may have been moved since
        weight, bias = self.weight.to(features.device), self.bias.to(features.device)
        return (features @ weight.T + bias)[:, self._columns]


WHOLE_IMAGE = {"resize_mode": "squash"}
"""Change of open_clip's preprocessing by which all of an image is seen, stretched to the model's size."""


def has_head(folder: Path) -> bool:
    """Tell whether a model's folder has a classifier."""
    return (folder / HEAD).is_file()


def load_head(
    folder: Path, model: nn.Module, transform: Callable[[Image.Image], Tensor], dtype: torch.dtype, batch_size: int
) -> OpenClipHeadProposer:
    """Load the classifier in a model's folder.

    Raises
    ------
    SavedModelError
        If it is incomplete.
    """
    try:
        tensors, names = load_file(folder / HEAD), json.loads((folder / LABELS).read_text(encoding="utf-8"))
        weight, bias = tensors["weight"], tensors["bias"]
    except (KeyError, ValueError, OSError) as error:
        raise SavedModelError(f"the classifier in {folder} is damaged: {error}; train it again") from error
    if not len(weight) == len(bias) == len(names):
        raise SavedModelError(f"the classifier in {folder} is damaged: {len(names)} names of {len(weight)} classes")
    return OpenClipHeadProposer(model, transform, dtype, batch_size, weight, bias, names)


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


class HeadedTower(nn.Module):
    """Image tower of an open_clip model, and a linear classifier of its normalised features.

    Parameters
    ----------
    visual : nn.Module
        The tower.
    weight, bias : float array `[C, d]`, `[C]`
        The classifier.
    """

    pretrained_cfg: ClassVar = {"classifier": "head"}
    """Name of the last layer, by which timm counts the layers before it."""

    def __init__(self, visual: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.visual, self.head = visual, nn.Linear(*weight.shape[::-1])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))

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
        size = prepared.size if isinstance(prepared.size, tuple) else (prepared.size, prepared.size)
        tower = HeadedTower(copy.deepcopy(model.visual), weight, bias)
        self.network = PixelNetwork(tower, size, prepared.mean, prepared.std, prepared.interpolation)

    def learning_rates(self, decay: float) -> Mapping[str, float]:
        """Factors on the learning rate; see `FineTunable`."""
        return self.network.learning_rates(decay)

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
