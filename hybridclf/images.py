"""What users pass as X, made into one array: vectors `[n, d]` or images `[n, H, W, C]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_array

from .errors import InvalidInputError

__all__ = ["as_array", "describe", "is_empty", "is_image_list", "select", "value_range"]


def is_image_list(X: Any) -> bool:
    """Whether X is a list or tuple of images: PIL's, or arrays of two axes or more."""
    return isinstance(X, list | tuple) and len(X) > 0 and (_is_pil(X[0]) or getattr(X[0], "ndim", 0) >= 2)


def is_empty(X: Any) -> bool:
    """Whether X is an array, a table or a list without a single item."""
    return tuple(X.shape[:1]) == (0,) if hasattr(X, "shape") else isinstance(X, list | tuple) and not X


def _is_pil(image: Any) -> bool:
    return hasattr(image, "getbands")


def as_array(X: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """Images or vectors as one array, uint8 or float.

    Parameters
    ----------
    X : array `[n, d]`, `[n, H, W]` or `[n, H, W, C]`, or list of images
        uint8 or real numbers in any fixed range.
    shape : tuple of int, optional
        (H, W), (H, W, C) or (d,) of one item; flattened images `[n, H·W·C]` are unfolded to it. Default: as X has it.

    Returns
    -------
    array `[n, d]` or `[n, H, W, C]`

    Raises
    ------
    InvalidInputError
        For an empty X, images of different sizes, or items of another shape than `shape`.
    ValueError
        From scikit-learn, for nan, inf, complex numbers and the like.
    """
    wanted = None if shape is None else (*shape, 1) if len(shape) == 2 else tuple(shape)
    if is_image_list(X):
        X = _stack(X, wanted[2] if wanted is not None and len(wanted) == 3 else None)
    if isinstance(X, np.ndarray) and X.dtype == np.uint8 and X.ndim > 2 and X.size:
        array = X  # checking would make a copy eight times the size
    else:
        array = check_array(X, dtype="numeric", order="C", allow_nd=True)  # one order: matrix products round by it
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim not in (2, 4) or not array.size:
        raise InvalidInputError(
            f"X has shape {array.shape}; accepted are [n, d], [n, H, W], [n, H, W, C] and lists of PIL images"
        )
    return array if wanted is None else _unfold(array, wanted)


def _unfold(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    if array.ndim == 2 and len(wanted) == 3 and array.shape[1] == np.prod(wanted):
        return array.reshape(-1, *wanted)
    if array.ndim == 4 and len(wanted) == 1 and np.prod(array.shape[1:]) == wanted[0]:
        return array.reshape(-1, *wanted)
    if array.shape[1:] != wanted:
        raise InvalidInputError(f"expected {describe(wanted)}, got {describe(array.shape[1:])}; resize them first")
    return array


def _stack(images: Sequence[Any], channels: int | None) -> np.ndarray:
    """Images of one size as one array `[n, H, W]` or `[n, H, W, C]`."""
    pil = _is_pil(images[0])
    if any(_is_pil(image) != pil for image in images):
        raise InvalidInputError("X mixes PIL images with other things; give images of one kind")
    sizes = {image.size if pil else np.shape(image) for image in images}
    if len(sizes) > 1:
        raise InvalidInputError(f"images must share one size, got {sorted(sizes)[:5]}; resize them first")
    return _pixels(images, channels) if pil else np.stack(images)


def _pixels(images: Sequence[Any], channels: int | None) -> np.ndarray:
    """PIL images as uint8: of so many channels, by default grey if all of them are, else RGB."""
    modes = {image.mode for image in images}
    deep = sorted(mode for mode in modes if mode.startswith(("I", "F")))
    if deep:
        raise InvalidInputError(f"images of mode {deep[0]!r} have more than 8 bits; pass their pixels as arrays")
    mode = {None: "L" if modes <= {"1", "L"} else "RGB", 1: "L", 4: "RGBA"}.get(channels, "RGB")
    return np.stack([np.asarray(image.convert(mode)) for image in images])


def value_range(array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value of images like these: 0 and 255 for uint8, else what they hold."""
    return (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))


def describe(shape: Sequence[int]) -> str:
    """A shape in words: "vectors of 64 numbers" or "images of 8x8x1"."""
    return f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"images of {'x'.join(map(str, shape))}"


def select(images: Any, index: np.ndarray) -> Any:
    """Some of the images, from an array or a list."""
    return images[index] if hasattr(images, "dtype") else [images[i] for i in index]
