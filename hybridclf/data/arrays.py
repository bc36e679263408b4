"""What users pass as X, made into one array, vectors `[n, d]` or images `[n, H, W, C]`; and PIL images of any kind."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from sklearn.utils import _safe_indexing, check_array

from ..errors import InvalidInputError

__all__ = [
    "Items",
    "as_array",
    "as_pil",
    "convert",
    "describe",
    "in_range",
    "is_empty",
    "is_image_list",
    "is_pil_list",
    "scaled",
    "select",
    "upright",
    "value_range",
]


MAX_ASPECT = 200
"""How much longer than wide an image may be: models that resize the shorter edge make the longer one as much longer."""


def is_image_list(X: Any) -> bool:
    """Whether X is a list or tuple of images: PIL's, or arrays of two axes or more."""
    return (
        isinstance(X, list | tuple) and len(X) > 0 and (isinstance(X[0], Image.Image) or getattr(X[0], "ndim", 0) >= 2)
    )


def is_pil_list(X: Any) -> bool:
    """Whether X is a list or tuple of PIL images."""
    return is_image_list(X) and isinstance(X[0], Image.Image)


def is_empty(X: Any) -> bool:
    """Whether X is an array, a table or a list without a single item."""
    return tuple(X.shape[:1]) == (0,) if hasattr(X, "shape") else isinstance(X, list | tuple) and not X


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
    pil = isinstance(images[0], Image.Image)
    if any(isinstance(image, Image.Image) != pil for image in images):
        raise InvalidInputError("X mixes PIL images with other things; give images of one kind")
    images = [upright(image) for image in images] if pil else images
    sizes = {image.size if pil else np.shape(image) for image in images}
    if len(sizes) > 1:
        raise InvalidInputError(f"images must share one size, got {sorted(sizes)[:5]}; resize them first")
    return _pixels(images, channels) if pil else np.stack(images)


def _pixels(images: Sequence[Image.Image], channels: int | None) -> np.ndarray:
    """PIL images as uint8: of so many channels, by default grey if all of them are, else RGB."""
    grey = {image.mode for image in images} <= {"1", "L"}
    mode = {None: "L" if grey else "RGB", 1: "L", 4: "RGBA"}.get(channels, "RGB")
    return np.stack([np.asarray(convert(image, mode)) for image in images])


def as_pil(image: Any) -> Image.Image:
    """A PIL image `upright`, or a uint8 array `[H, W]` or `[H, W, C]` (C = 1, 3 or 4) as one.

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


def upright(image: Image.Image) -> Image.Image:
    """A PIL image in 8 bits, turned as its camera meant it; of an animation the current frame.

    16-bit grey is scaled: Pillow's own conversion would cut it off at 255.

    Raises
    ------
    InvalidInputError
        For 32-bit pixels, whose range is unknown, or an image that is much longer than wide.
    """
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise InvalidInputError(f"an image of {image.width}x{image.height} pixels is too narrow; crop it")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidInputError(
            f"pixels are 32-bit numbers of unknown range (mode {image.mode}); convert the image to 8 bits"
        )
    return image


def convert(image: Image.Image, mode: str) -> Image.Image:
    """An 8-bit image of any mode in another, as Pillow converts palettes and CMYK; alpha is dropped or kept by mode."""
    if "transparency" in image.info:  # else Pillow warns
        image = image.convert("RGBA")
    if image.mode == "LAB":  # Pillow knows no other way
        image = image.convert("RGB")
    try:
        return image.convert(mode)
    except ValueError as error:
        raise InvalidInputError(f"an image of mode {image.mode} cannot become {mode}; save it as RGB") from error


def value_range(array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value of images like these: 0 and 255 for uint8, else what they hold."""
    return (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))


def in_range(images: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """Images as a model takes them that was fitted on a range: uint8 and bool scaled to it, others as they are.

    Parameters
    ----------
    images : array `[n, …]`
        Pixels as a user gave them.
    pixel_range : (low, high)
        Black and white in what the model was fitted on.

    Raises
    ------
    InvalidInputError
        For uint8 with no value beyond `high`, which may be meant either way, and for other whole numbers far beyond it.

    Warns
    -----
    UserWarning
        For floats that look like 0 to 1 or 0 to 255 where the model was fitted on another range.
    """
    low, high = pixel_range
    if images.dtype == bool:
        return scaled(images * np.uint8(255), pixel_range)
    if images.dtype == np.uint8:
        _check_scale_is_plain(images, pixel_range)
        return scaled(images, pixel_range)
    lowest, highest = value_range(images)
    held = f"the images hold {images.dtype} {lowest:g} to {highest:g}, and the model was fitted on {low:g} to {high:g}"
    beyond = highest > high + (high - low)
    if beyond and np.issubdtype(images.dtype, np.integer):
        raise InvalidInputError(f"{held}; give uint8 or PIL images, whose 0 to 255 are scaled, or scale them yourself")
    if lowest >= 0 and ((beyond and highest <= 255) or (low >= 0 and 0 < highest <= 1 and high >= 8)):
        warnings.warn(f"{held}; if that is another scale, bring them to the model's", UserWarning, stacklevel=4)
    return images


def _check_scale_is_plain(images: np.ndarray, pixel_range: tuple[float, float]) -> None:
    """Check that uint8 images are meant as 0 to 255: numbers no higher than the model's own may be those."""
    highest = images.max()
    if 0 < highest <= pixel_range[1] <= 127:
        raise InvalidInputError(
            f"the images are uint8, of which 0 to 255 would be scaled to the {pixel_range[0]:g} to {pixel_range[1]:g} "
            f"that the model was fitted on, but hold nothing above {highest}; if they have the model's range, give "
            "floats: X.astype(float); if they are that dark, give PIL images"
        )


def scaled(pixels: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Pixels uint8 as they are for a range of 0 to 255 or None, else float, black and white becoming its ends."""
    low, high = pixel_range or (0.0, 255.0)
    return pixels if (low, high) == (0.0, 255.0) else low + pixels * ((high - low) / 255)


def describe(shape: Sequence[int]) -> str:
    """A shape in words: "vectors of 64 numbers" or "images of 8x8x1"."""
    return f"vectors of {shape[0]} numbers" if len(shape) == 1 else f"images of {'x'.join(map(str, shape))}"


def select(images: Any, index: np.ndarray) -> Any:
    """Some of the images or rows, from an array, a list or a table."""
    return _safe_indexing(images, index)


@dataclass(frozen=True)
class Items:
    """n items in the form that each tier takes.

    Attributes
    ----------
    given : array, table or list of n items
        For a scikit-learn tier 1: a table as the user passed it, with its column names, types and gaps; else as below.
    images : array `[n, d]` or `[n, H, W, C]`, or list of n images
        For tier 2, and for a tier 1 that takes images.
    """

    given: Any
    images: Any

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: np.ndarray) -> "Items":
        """Some of them."""
        images = select(self.images, index)
        return Items(images if self.given is self.images else select(self.given, index), images)
