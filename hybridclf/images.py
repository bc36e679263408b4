"""What users pass as X, made into one array: vectors `[n, d]` or images `[n, H, W, C]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_array

from .errors import InvalidInputError

__all__ = ["as_array", "describe", "is_image_list"]


def is_image_list(X: Any) -> bool:
    """Whether X is a list or tuple of PIL images."""
    return isinstance(X, list | tuple) and len(X) > 0 and hasattr(X[0], "getbands")


def as_array(X: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """Images or vectors as one array, uint8 or float.

    Parameters
    ----------
    X : array `[n, d]`, `[n, H, W]` or `[n, H, W, C]`, or list of PIL images
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
        array = _stack(X, None if wanted is None else wanted[-1])
    elif isinstance(X, np.ndarray) and X.dtype == np.uint8 and X.ndim > 2 and X.size:
        array = X  # checking would make a copy eight times the size
    else:
        array = check_array(X, dtype="numeric", allow_nd=True)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim not in (2, 4):
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
    """PIL images as uint8 `[n, H, W, C]`: grey if all are (or one channel is wanted), else RGB."""
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise InvalidInputError(f"images must share one size, got {sorted(sizes)[:5]}; resize them first")
    grey = channels == 1 if channels else all(image.mode in ("1", "L") for image in images)
    stacked = np.stack([np.asarray(image.convert("L" if grey else "RGB")) for image in images])
    return stacked[..., None] if grey else stacked


def describe(shape: Sequence[int]) -> str:
    """A shape in words: "vectors of 64 numbers" or "images of 8x8x1"."""
    return f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"images of {'x'.join(map(str, shape))}"
