"""Linear classifier on the image features of an open_clip model, in the model's folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridclf.errors import SavedModelError, UnknownLabelError, choices

from ._image_proposer import labels_of
from ._open_clip_features import HEAD, LABELS, OpenClipFeatures

__all__ = ["OpenClipHeadProposer", "has_head", "load_head"]


class OpenClipHeadProposer(OpenClipFeatures):
    """Proposer of a linear classifier on the normalised image features of an open_clip model.

    Parameters
    ----------
    model, transform, dtype, batch_size, config
        As in `OpenClipFeatures`.
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
        batch_size: int | None,
        config: dict[str, Any],
        weight: Tensor,
        bias: Tensor,
        names: list[str],
    ) -> None:
        super().__init__(model, transform, dtype, batch_size, config)
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
        features = self._embeddings(pixels)
        # the model may have been moved since
        weight, bias = self.weight.to(features.device), self.bias.to(features.device)
        return (features @ weight.T + bias)[:, self._columns]


def has_head(folder: Path) -> bool:
    """Tell whether a model's folder has a classifier."""
    return (folder / HEAD).is_file()


def load_head(
    folder: Path,
    model: nn.Module,
    transform: Callable[[Image.Image], Tensor],
    dtype: torch.dtype,
    batch_size: int | None,
    config: dict[str, Any],
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
    return OpenClipHeadProposer(model, transform, dtype, batch_size, config, weight, bias, names)
