"""timm models as proposers, "timm:resnet50.a1_in1k" or "timm:MODEL/CHECKPOINT", and our own pairs as timm models.

The import registers every embedded pair: `timm.create_model("hybridclf_digits", pretrained=True)`.
`python -m hybridclf_adapters.timm SCRIPT ARGS…` runs a script, such as timm's validate.py, with them registered.
"""

import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from timm.data import CustomDatasetInfo, ImageNetInfo, create_transform, infer_imagenet_subset
from torch import Tensor, nn

from hybridclf.devices import as_device
from hybridclf.errors import HybridClfError, InvalidInputError, UnknownLabelError, choices
from hybridclf.ports import Label

from ._checks import same_twice
from ._hub import asking_hub
from ._image_proposer import (
    ImageProposer,
    check_options,
    labels_of,
    refusing_pickles,
)
from ._imagenet import imagenet, named
from ._timm_checks import check_classifier, check_name
from ._timm_convnet import ConvNet as ConvNet  # its import registers it, for saved pairs
from ._timm_features import FeatureExtractor, TimmFineTunable, check_head
from ._timm_loading import create, data_config, loading_error, read_label_names, split_spec
from ._timm_models import HybridModel
from ._timm_registry import register

__all__ = ["HybridModel", "TimmProposer", "load", "main", "register"]

_MODES = {1: "L", 3: "RGB"}

_ADVICE = (
    "type 'timm:MODEL/CHECKPOINT' with a file of weights that is here, or 'timm:local-dir:FOLDER' with a folder of "
    "timm.models.save_for_hf"
)


def load(
    spec: str,
    *,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    features_only: bool = False,
    label_names: str | None = None,
) -> "TimmProposer":
    """Load a timm classifier as a proposer.

    Images are resized and cropped as timm recommends for tests, which may be larger than in training.

    Parameters
    ----------
    spec : str
        timm's name of a model, "resnet50.a1_in1k", "hf-hub:OWNER/REPO" or "local-dir:FOLDER"; or "MODEL/CHECKPOINT"
        with the path of a file of weights, "resnet18//home/me/model_best.pth.tar". The checkpoint then decides the
        number of classes, and timm's configuration of the model how images are prepared. For any other preparation
        save a folder by `timm.models.save_for_hf`.
    device : str
        "auto" (a GPU if there is one), or torch's name of the device.
    precision : "fp32", "fp16" or "bf16", optional
        Type of the computation. Default: fp32; a network that `hybridclf train` made multiplies in bf16 on a processor
        that does so natively.
    batch_size : int, optional
        Images per pass, at least 1. Default: 16 on a CPU, else 64.
    features_only : bool
        Take a network without a classifier, too, such as a DINOv2, for its features alone.
    label_names : str, optional
        Names of the classes in the order of the outputs, with commas between them, or a text file of one name per line
        ("names.txt"). Default: the model's own; see `class_names`.

    Returns
    -------
    TimmProposer

    Raises
    ------
    UnknownSpecError
        For an unknown model or checkpoint, or a model without weights in timm.
    InvalidInputError
        For a model without a classifier, a model of images that are neither grey nor RGB, options out of range, or
        other than one name per class.
    SavedModelError
        For pickled objects instead of weights, or weights that are damaged or do not fit the model.

    Examples
    --------
    >>> proposer = load("resnet18.a1_in1k").fit(None, ["beagle", "pug"])  # doctest: +SKIP
    """
    dtype = check_options(precision or "fp32", batch_size)
    name, checkpoint = split_spec(spec)
    check_name(name, needs_weights=checkpoint is None, features_only=features_only)
    try:
        here = checkpoint is not None or spec.startswith("local-dir:")
        with refusing_pickles(spec), nullcontext() if here else asking_hub(spec, _ADVICE):
            model: Any = create(name, checkpoint)
    except HybridClfError:
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise loading_error(spec, error) from error
    if not features_only:
        check_classifier(spec, model)
    if label_names is not None:
        model.pretrained_cfg["label_names"] = read_label_names(label_names, model.num_classes)
    config = data_config(model)
    channels = config["input_size"][0]
    if channels not in _MODES:
        raise InvalidInputError(f"{spec!r} takes images of {channels} channels; supported are grey and RGB images")
    model = model.to(as_device(device), dtype)
    if isinstance(model, ConvNet):
        model.mixed = precision is None
    return TimmProposer(model, create_transform(**config), dtype, batch_size, _MODES[channels])


class TimmProposer(ImageProposer):
    """Proposer of a timm classifier, over all of its classes or some.

    Parameters
    ----------
    model : nn.Module
        Model with timm's `num_classes` and `pretrained_cfg`.
    transform, dtype, batch_size
        As in `ImageProposer`.
    mode : "RGB" or "L"
        Mode of the model's images.

    Attributes
    ----------
    names : list of str or int `[num_classes]`
        Names of the model's classes: its own label names, ImageNet's, or numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        dtype: torch.dtype,
        batch_size: int | None,
        mode: str = "RGB",
    ) -> None:
        super().__init__(model, transform, dtype, batch_size)
        self.mode = mode
        self.names, columns = class_names(model)
        self._columns_of: dict[Label, list[int]] = {i: [i] for i in range(len(self.names))} | columns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose among the model's classes; nothing is trained.

        Parameters
        ----------
        X : images or None
            None if y is the names themselves. Images are not read.
        y : sequence of labels, or None
            Labels, or the label of each image: entries of `names`, other names of an ImageNet class, its WordNet id, or
            a class's number. None for all classes. Probabilities are conditional on the chosen classes.

        Returns
        -------
        self

        Raises
        ------
        UnknownLabelError
            For an unknown class, or a name that several classes share.
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

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        return FeatureExtractor(self.model, self.mode)

    @property
    def feature_side(self) -> int:
        """Side in pixels to which `features` stretches images."""
        return self._extractor.side

    def features(self, images: Any) -> np.ndarray:
        """Compute the features that the model's last layer sees, of whole images; see `FeatureModel`."""
        parts = self.batches(lambda start, n: self._extractor(images[start : start + n], self.dtype), len(images))
        return torch.cat(list(parts)).numpy()

    def check_head(self) -> None:
        """Check that the model can be saved with a new classifier; see `FeatureModel`."""
        side = self.feature_side
        check_head(self.model, self.features([Image.new(self.mode, (side, side))]).shape[1])

    def with_head(self, weight: np.ndarray, bias: np.ndarray, classes: Sequence[str]) -> TimmFineTunable:
        """Copy the model, with a new linear classifier; see `FeatureModel`."""
        return TimmFineTunable(self.model, weight, bias, classes)

    def _column(self, label: Label) -> int:
        found = self._columns_of.get(label, [])
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(repr(self.names[i]) for i in found)
            raise UnknownLabelError(f"{label!r} is the name of several classes; type one of: {names}")
        near = get_close_matches(str(label), [name for name in self._columns_of if isinstance(name, str)], n=3)
        hint = f"did you mean {choices(near)}?" if near else f"it has {choices(self.names)}"
        if isinstance(self.names[0], int):
            hint += "; name them in the order of the outputs, by ?label_names=cat,dog,… or a text file of one a line"
        raise UnknownLabelError(f"the model has no class {label!r}; {hint}")

    def _logits(self, pixels: Tensor) -> Tensor:
        """Compute logits `[b, C]` of the chosen classes, from normalised images `[b, channels, H, W]`."""
        if pixels.device.type == "cpu":
            # every convolutional network that was tried is faster so, by up to 2.5 times
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.model(pixels)[:, self._columns]


def class_names(model: Any) -> tuple[list[Label], dict[Label, list[int]]]:
    """Name the classes of a timm model.

    Names are the label names in its `pretrained_cfg`, else ImageNet's if one of ImageNet's subsets has as many classes,
    else numbers. Names that repeat get the class's id or number appended.

    Returns
    -------
    names : list `[num_classes]`
        Distinct names.
    columns : dict
        Columns that each accepted name may mean.
    """
    n_classes, given = model.num_classes, model.pretrained_cfg.get("label_names")
    # by the number of classes: 1000, 11821, 21841 and so on
    subset = infer_imagenet_subset(model)
    # WordNet ids as label names are ImageNet's own classes without words
    if given and not (subset and list(given) == ImageNetInfo(subset).label_names()):
        info = CustomDatasetInfo(given)
        # too few names leave the last classes with numbers
        own = {i: info.index_to_label_name(i) if info.has_label(i) else str(i) for i in range(n_classes)}
        names, columns = named(own)
    elif subset:
        names, columns = imagenet(subset)
    else:
        return list(range(n_classes)), {}
    return list(names.values()), {**columns}


def main() -> None:
    """Run a script by its command line, as `python SCRIPT ARGS…` does, with our models registered."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m hybridclf_adapters.timm SCRIPT ARGS…")
    # the script sees its own name and arguments
    del sys.argv[0]
    # Python puts a script's folder first on the path
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
