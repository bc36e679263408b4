"""Conversion of X to one array, vectors `[n, d]` or images `[n, H, W, C]`, and of PIL images to 8 bits."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import _safe_indexing, check_array

from ..errors import InvalidInputError
from .decoding import convert, upright

__all__ = [
    "Items",
    "as_array",
    "as_pil",
    "block_means",
    "describe",
    "in_range",
    "is_empty",
    "is_image_list",
    "is_pil_list",
    "scaled",
    "select",
    "to_bytes",
    "value_range",
]


def is_image_list(X: Any) -> bool:
    """Tell whether X is a list or tuple of images: PIL's, or arrays of two axes or more."""
    return (
        isinstance(X, list | tuple) and len(X) > 0 and (isinstance(X[0], Image.Image) or getattr(X[0], "ndim", 0) >= 2)
    )


def is_pil_list(X: Any) -> bool:
    """Tell whether X is a list or tuple of PIL images."""
    return is_image_list(X) and isinstance(X[0], Image.Image)


def is_empty(X: Any) -> bool:
    """Tell whether X is an array, a table or a list without a single item."""
    return tuple(X.shape[:1]) == (0,) if hasattr(X, "shape") else isinstance(X, list | tuple) and not X


def as_array(X: Any, shape: Sequence[int] | None = None) -> np.ndarray:
    """Convert images or vectors to one array, uint8 or float.

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
        # bytes hold no nan or inf to check for, and check_array's float64 copy would take eight times the memory
        array = X
    else:
        # always C order: a matrix product of a transposed array rounds otherwise
        array = check_array(X, dtype="numeric", order="C", allow_nd=True)
    if array.ndim == 3:  # grey images [n, H, W] get their channel axis
        array = array[..., None]
    if array.ndim not in (2, 4) or not array.size:
        raise InvalidInputError(
            f"X has shape {array.shape}; accepted are [n, d], [n, H, W], [n, H, W, C] and lists of PIL images"
        )
    return array if wanted is None else _unfold(array, wanted)


def _unfold(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Reshape flattened images `[n, H·W·C]` to images, or images to vectors, if the model takes the other form."""
    if array.ndim == 2 and len(wanted) == 3 and array.shape[1] == np.prod(wanted):  # [n, 64] -> [n, 8, 8, 1]
        return array.reshape(-1, *wanted)
    if array.ndim == 4 and len(wanted) == 1 and np.prod(array.shape[1:]) == wanted[0]:  # [n, 8, 8, 1] -> [n, 64]
        return array.reshape(-1, *wanted)
    if array.shape[1:] != wanted:
        advice = "resize them first"
        if len(wanted) == 3 and array.shape[1:] == (wanted[2], *wanted[:2]):
            advice = "channels come last: X.permute(0, 2, 3, 1) of a tensor, X.transpose(0, 2, 3, 1) of an array"
        elif array.ndim == 4 and array.shape[:3] == wanted:  # its rows were taken for images
            advice = "X is one image, give a list of images: [X]"
        elif len(wanted) == 3 and array.shape[1:3] == wanted[:2]:
            advice = "give PIL images, which are converted to the model's channels"
        raise InvalidInputError(f"expected {describe(wanted)}, got {describe(array.shape[1:])}; {advice}")
    return array


def _stack(images: Sequence[Any], channels: int | None) -> np.ndarray:
    """Stack images of one size into an array `[n, H, W]` or `[n, H, W, C]`."""
    pil = isinstance(images[0], Image.Image)
    if any(isinstance(image, Image.Image) != pil for image in images):
        raise InvalidInputError("X mixes PIL images with other things; give images of one kind")
    # turn before comparing sizes: a photo taken upright swaps width and height
    images = [upright(image) for image in images] if pil else images
    sizes = {image.size if pil else np.shape(image) for image in images}
    if len(sizes) > 1:
        raise InvalidInputError(f"images must share one size, got {sorted(sizes)[:5]}; resize them first")
    return _pixels(images, channels) if pil else np.stack(images)


def _pixels(images: Sequence[Image.Image], channels: int | None) -> np.ndarray:
    """Convert PIL images to uint8 of that many channels; by default grey if every image is grey, else RGB."""
    grey = {image.mode for image in images} <= {"1", "L"}
    mode = {None: "L" if grey else "RGB", 1: "L", 4: "RGBA"}.get(channels, "RGB")
    return np.stack([np.asarray(convert(image, mode)) for image in images])


def as_pil(image: Any) -> Image.Image:
    """Convert a uint8 array `[H, W]` or `[H, W, C]` (C = 1, 3 or 4), or any PIL image, to an `upright` PIL image.

    Raises
    ------
    InvalidInputError
        For anything else.
    """
    if isinstance(image, Image.Image):
        return upright(image)
    array = np.asarray(image)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits or not array.size:
        raise InvalidInputError(
            f"an image must be a PIL image or a uint8 array [H, W], [H, W, 3] or [H, W, 4]; got shape {array.shape} of "
            f"{array.dtype}"
        )
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def value_range(array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value of the images: 0 and 255 for uint8 whatever they hold, else the minimum and maximum."""
    return (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))


def in_range(images: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """Bring images to the value range a model was fitted on: uint8 and bool are scaled, other types stay.

    Parameters
    ----------
    images : array `[n, …]`
        The user's pixels.
    pixel_range : (low, high)
        Black and white in the model's training images.

    Returns
    -------
    array `[n, …]`

    Raises
    ------
    InvalidInputError
        For uint8 without a value above `high`, whose scale is ambiguous, and for wider integers far above `high`.

    Warns
    -----
    UserWarning
        For floats that look like 0 to 1 or 0 to 255 if the model was fitted on another range.
    """
    low, high = pixel_range
    if images.dtype == bool:
        return scaled(images * np.uint8(255), pixel_range)
    if images.dtype == np.uint8:
        _check_scale_is_plain(images, pixel_range)
        return scaled(images, pixel_range)
    lowest, highest = value_range(images)
    held = f"the images hold {images.dtype} {lowest:g} to {highest:g}, and the model was fitted on {low:g} to {high:g}"
    beyond = highest > high + (high - low)  # by a whole range, not by an outlier
    if beyond and np.issubdtype(images.dtype, np.integer):
        raise InvalidInputError(f"{held}; give uint8 or PIL images, whose 0 to 255 are scaled, or scale them yourself")
    # two suspects: 0 to 255 for a model of a smaller range, 0 to 1 for a model of a larger one
    if lowest >= 0 and ((beyond and highest <= 255) or (low >= 0 and 0 < highest <= 1 and high >= 8)):
        warnings.warn(f"{held}; if that is another scale, bring them to the model's", UserWarning, stacklevel=4)
    return images


def _check_scale_is_plain(images: np.ndarray, pixel_range: tuple[float, float]) -> None:
    """Refuse uint8 images that may already be in the model's range, as the digits' 0 to 16 are."""
    highest = images.max()
    if 0 < highest <= pixel_range[1] <= 127:
        raise InvalidInputError(
            f"the images are uint8, of which 0 to 255 would be scaled to the {pixel_range[0]:g} to {pixel_range[1]:g} "
            f"that the model was fitted on, but hold nothing above {highest}; if they have the model's range, give "
            "floats: X.astype(float); if they are that dark, give PIL images"
        )


def scaled(pixels: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Scale uint8 pixels linearly to a range: 0 becomes its low end, 255 its high one; None means 0 to 255."""
    low, high = pixel_range or (0.0, 255.0)
    return pixels if (low, high) == (0.0, 255.0) else low + pixels * ((high - low) / 255)


def to_bytes(pixels: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """Undo `scaled`: uint8 pixels, of which 0 was the low end of the range and 255 its high one; others are clipped."""
    low, high = pixel_range
    return ((pixels - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)


def block_means(images: np.ndarray, factor: int) -> np.ndarray:
    """Average images `[n, H, W, C]` in squares of `factor` pixels a side, to `[n, H/factor, W/factor, C]`.

    The type stays; whole numbers are rounded.
    """
    if factor == 1:
        return images
    n, height, width, channels = images.shape
    small = np.empty((n, height // factor, width // factor, channels), images.dtype)
    rounded = np.issubdtype(images.dtype, np.integer)
    for i in range(0, n, 256):  # block by block: means are floats, eight times as large as bytes
        # [b, h, factor, w, factor, C]: a square is axes 2 and 4
        squares = images[i : i + 256].reshape(-1, height // factor, factor, width // factor, factor, channels)
        means = squares.mean(axis=(2, 4))
        small[i : i + 256] = means.round() if rounded else means
    return small


def describe(shape: Sequence[int]) -> str:
    """Say a shape in words: "vectors of 64 numbers" or "images of 8x8x1"."""
    return f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"images of {'x'.join(map(str, shape))}"


def select(images: Any, index: np.ndarray) -> Any:
    """Select items by position from an array, a list or a table."""
    return _safe_indexing(images, index)


@dataclass(frozen=True)
class Items:
    """The same n items twice, in the form each tier takes.

    Attributes
    ----------
    given : array, table or list of n items
        Input of a scikit-learn tier 1: a table keeps its column names, types and gaps; anything else is `images`.
    images : array `[n, d]` or `[n, H, W, C]`, or list of n images
        Input of tier 2, and of a tier 1 that takes images.
    """

    given: Any
    images: Any

    @classmethod
    def of_one(cls, image: Any) -> "Items":
        """A single image: an array without a batch's axis, or a PIL image."""
        images = image[None] if isinstance(image, np.ndarray) else [image]
        return cls(images, images)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: np.ndarray) -> "Items":
        """Select items by position."""
        images = select(self.images, index)
        # one selection serves both forms if they are the same object
        return Items(images if self.given is self.images else select(self.given, index), images)
