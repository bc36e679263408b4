"""Linear classifier on the image features of an open_clip model, in the model's folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from hybridclf.errors import InvalidInputError, SavedModelError, UnknownLabelError, choices

from ._image_proposer import ImageProposer, labels_of

__all__ = ["WHOLE_IMAGE", "OpenClipHeadProposer", "check_text_tower", "has_head", "load_head", "save_with_head"]

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


def save_with_head(
    model: Any, config: dict[str, Any], weight: np.ndarray, bias: np.ndarray, classes: Sequence[str], folder: Path
) -> None:
    """Write an open_clip model and a classifier of its features into a folder.

    Parameters
    ----------
    model : nn.Module
        open_clip's model.
    config : dict
        open_clip's configuration of it.
    weight, bias, classes
        As in `OpenClipHeadProposer`.
    folder : path
        New folder.

    Raises
    ------
    InvalidInputError
        As `check_text_tower` does.
    """
    check_text_tower(config)
    folder.mkdir(parents=True)
    # as the features are computed: of the whole image
    described = {"model_cfg": config, "preprocess_cfg": dict(model.visual.preprocess_cfg) | WHOLE_IMAGE}
    (folder / "open_clip_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    head = {"weight": torch.from_numpy(weight).float().contiguous(), "bias": torch.from_numpy(bias).float()}
    save_file(head, folder / HEAD)
    (folder / LABELS).write_text(json.dumps(list(classes)), encoding="utf-8")
