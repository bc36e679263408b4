"""Base class of proposers of images: reading of images, batches, devices and labels."""

import copy
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from hybridclf.data.arrays import as_pil
from hybridclf.data.decoding import convert
from hybridclf.denoising.batch_size import Batches, check_batch_size
from hybridclf.errors import InvalidInputError, SavedModelError
from hybridclf.utils.names import told_apart

from ._checks import as_dtype

__all__ = [
    "ImageProposer",
    "check_options",
    "labels_of",
    "refusing_pickles",
]


_NO_PICKLE = (pickle.UnpicklingError, EOFError, IndexError)
"""Exceptions of torch for a file that it refuses to unpickle, or that is no pickle: empty, or a text."""


ON_CPU, ON_GPU = 16, 64
"""Images per pass, if the user does not say.

A CPU took 1.2 to 2.1 times as long for an image of 224 pixels with 64 of them: maps of more than 32 MB are allocated
anew by every layer.
"""


class ImageProposer(ABC):
    """Proposer of a trained torch model, from images to log-probabilities of chosen classes.

    It is no scikit-learn estimator, so hybridclf does not train it. Copies by `sklearn.base.clone` share the weights,
    which never change, and keep their own classes.

    Parameters
    ----------
    model : nn.Module
        Trained model, on its device and in its precision; it is set to evaluation.
    transform : function
        Function from a PIL image to the model's input `[C, H, W]`.
    dtype : torch.dtype
        Type of the model's input.
    batch_size : int or None
        Images per pass, halved for good if the device's memory runs out; None for `ON_CPU` or `ON_GPU`. The
        log-probabilities of an image vary in their last digits with the others in its pass.

    Attributes
    ----------
    classes_ : array `[C]`
        Labels of the columns, set by `fit`.
    """

    takes_images = True
    mode = "RGB"
    classes_: np.ndarray

    def __init__(
        self, model: nn.Module, transform: Callable[[Image.Image], Tensor], dtype: torch.dtype, batch_size: int | None
    ) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.transform, self.dtype = transform, dtype
        self.batches = Batches(batch_size or (ON_CPU if self.device.type == "cpu" else ON_GPU))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def resize_side(self) -> int | None:
        """Side in pixels to which images are resized, before they are cropped; None if the transform does not say."""
        steps = getattr(self.transform, "transforms", ())
        return next((int(np.max(step.size)) for step in steps if hasattr(step, "size")), None)

    @abstractmethod
    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the classes named in y; nothing is trained."""

    @abstractmethod
    def _logits(self, pixels: Tensor) -> Tensor:
        """Compute unnormalised log-probabilities `[b, C]` of the model's input `[b, channels, H, W]`."""

    def predict_log_proba(self, images: Any) -> np.ndarray:
        """Predict log-probabilities of images.

        Parameters
        ----------
        images : list of PIL images or uint8 arrays, or one uint8 array `[n, H, W]` or `[n, H, W, C]`
            Images of any size and mode.

        Returns
        -------
        float array `[n, C]`

        Raises
        ------
        NotFittedError
            Before `fit`.
        InvalidInputError
            For anything but images.
        HybridClfError
            If the device's memory is too small for a single image.
        """
        return torch.log_softmax(self._all_logits(images), dim=1).numpy()

    def logits(self, images: Any) -> np.ndarray:
        """Compute unnormalised log-probabilities `[n, C]`; parameters and errors as in `predict_log_proba`."""
        return self._all_logits(images).numpy()

    def predict_proba(self, images: Any) -> np.ndarray:
        """Predict probabilities `[n, C]`; parameters and errors as in `predict_log_proba`."""
        return np.exp(self.predict_log_proba(images))

    def predict(self, images: Any) -> np.ndarray:
        """Predict the likeliest label of each image `[n]`; parameters and errors as in `predict_log_proba`."""
        return self.classes_[self.predict_log_proba(images).argmax(axis=1)]

    def _all_logits(self, images: Any) -> Tensor:
        """Compute unnormalised log-probabilities of all images, float64 `[n, C]`, in batches."""
        if not hasattr(self, "classes_"):
            raise NotFittedError("no classes are chosen yet; call fit(None, labels) first")
        if isinstance(images, Image.Image) or not hasattr(images, "__len__"):
            raise InvalidInputError(f"give a list of images or an array [n, H, W, C], got {type(images).__name__}")
        logits = self.batches(lambda start, size: self._image_logits(images[start : start + size]), len(images))
        # the empty part keeps the shape [0, C] of no images
        return torch.cat([torch.empty(0, len(self.classes_)), *logits]).double()

    @torch.inference_mode()
    def _image_logits(self, images: Any) -> Tensor:
        pixels = torch.stack([self.transform(convert(as_pil(image), self.mode)) for image in images])
        return self._logits(pixels.to(self.device, self.dtype)).float().cpu()

    def __sklearn_clone__(self) -> Self:
        # shallow: weights are shared, and `fit` replaces attributes of the copy alone
        return copy.copy(self)


def labels_of(X: Any, y: Any, repeats: bool = False) -> np.ndarray:
    """Classes `[C]` of `fit(X, y)`: the distinct labels in y, sorted, if there are images, else y itself.

    With `repeats`, names may repeat in a y of at least two names, and get their position appended.

    Raises
    ------
    InvalidInputError
        If y is empty, or names repeat that may not.
    """
    if y is None or np.ndim(y) != 1 or len(y) == 0:
        raise InvalidInputError(f"labels must be a list of names such as ['cat', 'dog'], got {y!r}")
    labels = np.asarray(y)
    distinct = np.unique(labels)
    if X is None and repeats and len(distinct) > 1:
        labels = np.asarray(told_apart(labels.tolist()))
        distinct = np.unique(labels)
    if X is None and len(distinct) < len(labels):
        raise InvalidInputError(f"labels must differ from each other, got {labels.tolist()}")
    return labels if X is None else distinct


def check_options(precision: str, batch_size: int | None) -> torch.dtype:
    """Check the common options of proposers, and return the type of the precision.

    Raises
    ------
    InvalidInputError
        For values out of range.
    """
    check_batch_size(batch_size)
    return as_dtype(precision)


@contextmanager
def refusing_pickles(spec: str) -> Iterator[None]:
    """Turn torch's refusal to unpickle a checkpoint into an error that says how to convert it, in a `with` block.

    Raises
    ------
    SavedModelError
        For a checkpoint that holds more than tensors.
    """
    try:
        yield
    except (*_NO_PICKLE, RuntimeError) as error:
        # torch wraps the refusal in a RuntimeError for some formats
        if "weights_only" not in str(error) and not isinstance(error, _NO_PICKLE):
            raise
        raise SavedModelError(
            f"the weights of {spec!r} are damaged, or pickled objects, which can run any code and are not loaded; if "
            "you trust them, convert them once: safetensors.torch.save_file(the model's state_dict(), "
            "'model.safetensors')"
        ) from error
