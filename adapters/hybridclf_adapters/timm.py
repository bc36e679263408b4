"""timm models as proposers, "timm:resnet50.a1_in1k", and hybridclf's own pairs as timm models.

Importing this registers every pair that hybridclf ships: `timm.create_model("hybridclf_digits", pretrained=True)`.
`python -m hybridclf_adapters.timm SCRIPT ARGS…` runs a script, such as timm's validate.py, that knows of them.
"""

import runpy
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from timm.data import (
    CustomDatasetInfo,
    ImageNetInfo,
    create_transform,
    infer_imagenet_subset,
    resolve_model_data_config,
)
from timm.models import get_pretrained_cfg, is_model_pretrained, parse_model_name
from torch import Tensor, nn

from hybridclf.devices import as_device
from hybridclf.errors import (
    HybridClfError,
    InvalidInputError,
    SavedModelError,
    UnknownLabelError,
    UnknownSpecError,
    choices,
)
from hybridclf.ports import Label

from ._checks import same_twice
from ._image_proposer import (
    ImageProposer,
    check_options,
    labels_of,
    refusing_pickles,
)
from ._imagenet import imagenet, named
from ._timm_models import HybridModel, register

__all__ = ["HybridModel", "TimmProposer", "load", "main", "register"]

_MODES = {1: "L", 3: "RGB"}


def load(spec: str, *, device: str = "auto", precision: str = "fp32", batch_size: int = 64) -> "TimmProposer":
    """A proposer from a timm classifier; its weights are loaded now.

    Parameters
    ----------
    spec : str
        A model as timm spells it: "resnet50.a1_in1k", "hf-hub:OWNER/REPO" or "local-dir:FOLDER".
    device : str
        "auto" (a GPU if there is one) or what torch calls the device.
    precision : "fp32", "fp16" or "bf16"
        What the model computes in.
    batch_size : int
        Images in one pass.

    Raises
    ------
    UnknownSpecError
        For a model that is not there, or that timm has no weights for.
    InvalidInputError
        For a model without a classifier, one of images that are neither grey nor RGB, or options out of range.
    SavedModelError
        For pickled objects instead of weights.
    """
    dtype = check_options(precision, batch_size)
    _check_name(spec)
    try:
        with refusing_pickles(spec):
            model = timm.create_model(spec, pretrained=True)
    except FileNotFoundError as error:
        raise UnknownSpecError(f"{spec!r} is no folder of a timm model: {error}") from error
    except HybridClfError:
        raise
    except (KeyError, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise SavedModelError(f"{spec!r} cannot be loaded: {error!r}; copy or download it again") from error
    config = resolve_model_data_config(model)
    _check_classifier(spec, model, config["input_size"][0])
    mode = _MODES[config["input_size"][0]]
    return TimmProposer(model.to(as_device(device), dtype), create_transform(**config), dtype, batch_size, mode)


class TimmProposer(ImageProposer):
    """Log-probabilities of a timm classifier, over all of its classes or those asked for.

    Parameters
    ----------
    model : nn.Module
        With timm's `num_classes` and `pretrained_cfg`.
    transform, dtype, batch_size
        As for `ImageProposer`.
    mode : "RGB" or "L"
        What kind of images the model takes.

    Attributes
    ----------
    names : list of str or int `[num_classes]`
        What the model itself calls its classes: the label names it came with, ImageNet's, or numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        dtype: torch.dtype,
        batch_size: int,
        mode: str = "RGB",
    ) -> None:
        super().__init__(model, transform, dtype, batch_size)
        self.mode = mode
        self.names, columns = class_names(model)
        self._columns_of: dict[Label, list[int]] = {i: [i] for i in range(len(self.names))} | columns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose among the model's classes; nothing is trained, and images are not looked at.

        Parameters
        ----------
        X : images or None
            None if y is the names themselves.
        y : sequence of labels, or None
            Names as in `names`, one of an ImageNet class's several names, its WordNet id, or a class's number; with
            images the label of each. None for all classes. Probabilities are those given that it is one of them.

        Returns
        -------
        self

        Raises
        ------
        UnknownLabelError
            For a class that the model does not have, or a name that several of its classes have.
        InvalidInputError
            For two names of one class.
        """
        labels = np.asarray(self.names) if X is None and y is None else labels_of(X, y)
        columns = [self._column(label) for label in labels.tolist()]
        same = same_twice(columns)
        if same:
            i, j = same
            raise InvalidInputError(f"{labels[i]!r} and {labels[j]!r} are the same class, {self.names[columns[i]]!r}")
        self.classes_, self._columns = labels, columns
        return self

    def _column(self, label: Label) -> int:
        found = self._columns_of.get(label, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownLabelError(f"{label!r} is the name of several classes; type one of: {self._listed(found)}")
        near = get_close_matches(str(label), [name for name in self._columns_of if isinstance(name, str)], n=3)
        hint = f"did you mean {choices(near)}?" if near else f"it has {choices(self.names)}"
        raise UnknownLabelError(f"the model has no class {label!r}; {hint}")

    def _listed(self, columns: Sequence[int]) -> str:
        return ", ".join(repr(self.names[i]) for i in columns)

    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits `[b, C]` of the chosen classes, from normalised images `[b, channels, H, W]`."""
        return self.model(pixels)[:, self._columns]


def class_names(model: Any) -> tuple[list[Label], dict[Label, list[int]]]:
    """What a timm model calls its classes, and what else each may be called.

    The label names in its `pretrained_cfg`, ImageNet's if it has as many classes as one of ImageNet's subsets, or else
    numbers. Names that repeat get the class's id or number behind them.

    Returns
    -------
    names : list `[num_classes]`
        All different.
    columns : dict
        Of each name that a class may be called by the columns it may stand for.
    """
    n_classes, given = model.num_classes, model.pretrained_cfg.get("label_names")
    subset = infer_imagenet_subset(model)
    if given and not (subset and list(given) == ImageNetInfo(subset).label_names()):
        info = CustomDatasetInfo(given)
        own = {i: info.index_to_label_name(i) if info.has_label(i) else str(i) for i in range(n_classes)}
        names, columns = named(own)
    elif subset:
        names, columns = imagenet(subset)
    else:
        return list(range(n_classes)), {}
    return list(names.values()), {**columns}


def _check_name(spec: str) -> None:
    """Check that timm has the model and weights for it."""
    try:
        source, name = parse_model_name(spec)
        if source is None and timm.is_model(name):
            get_pretrained_cfg(name)  # raises for a tag that is none of its
    except (ValueError, RuntimeError) as error:
        raise UnknownSpecError(f"{error} {_with_weights(spec)}") from error
    if source is None and not timm.is_model(name):
        near = get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
        hint = f"did you mean {choices(near)}?" if near else "timm.list_models() lists them all"
        raise UnknownSpecError(f"timm has no model {name!r}; {hint}")
    if source is None and not is_model_pretrained(name):
        raise UnknownSpecError(f"timm has no weights for {name!r}. {_with_weights(name)}")


def _with_weights(name: str) -> str:
    found = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    return f"It has weights for {choices(found)}." if found else ""


def _check_classifier(spec: str, model: Any, channels: int) -> None:
    if not model.num_classes:
        raise InvalidInputError(
            f"{spec!r} has no classifier, only features; choose weights that end in in1k or the like"
        )
    if channels not in _MODES:
        raise InvalidInputError(
            f"{spec!r} takes images of {channels} channels; grey and RGB images are what can be given"
        )


def main() -> None:
    """Run the script that the command line names, as `python SCRIPT ARGS…` would, with our models registered."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m hybridclf_adapters.timm SCRIPT ARGS…")
    del sys.argv[0]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
