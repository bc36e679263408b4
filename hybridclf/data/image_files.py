"""Image files, opened safely and made into what a fitted classifier takes."""

import os
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from .arrays import as_pil, convert, describe, scaled, upright

__all__ = [
    "ENDINGS",
    "FORMATS",
    "as_item",
    "check_image_shape",
    "files_in",
    "image_paths",
    "open_image",
    "read_image",
    "read_pictures",
    "stretched",
    "try_image",
]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are opened: those of plain pictures, none that starts another program (EPS) or reads another file."""

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What the names of the files that are picked from a folder end in."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def image_paths(paths: Iterable[str | Path]) -> list[Path]:
    """Files among the paths as they are, folders replaced by the images anywhere in them, sorted.

    A folder without images stays in the list; `open_image` says what is wrong with it.
    """
    return [found for path in map(Path, paths) for found in (files_in(path) or [path])]


def files_in(folder: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """Files anywhere in a folder by their ending, sorted; hidden ones and those in hidden folders are left out."""
    inside = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside += [Path(parent, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in endings]
    return sorted(inside)


def try_image(source: str | Path | BinaryIO) -> Image.Image | InvalidInputError:
    """`open_image`, its error handed back instead of raised."""
    try:
        return open_image(source)
    except InvalidInputError as error:
        return error


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """One image file, upright as its camera meant it, decoded in full.

    Parameters
    ----------
    source : path or binary file
        Where it is, or its content.

    Raises
    ------
    InvalidInputError
        If it is missing, no image, damaged, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(source, str | Path) and Path(source).is_dir():
        raise InvalidInputError(f"a folder with no image in it: no file ends in {', '.join(ENDINGS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow remarks on metadata
        return read_image(source, Image.MAX_IMAGE_PIXELS)


def read_image(file: str | Path | BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """The same for a path or an open binary file, without a look at warnings: threads may call it.

    Raises
    ------
    InvalidInputError
        If it is missing, no image, damaged, or has more than `max_pixels` pixels; these are not even decoded.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise InvalidInputError(f"more than {max_pixels} pixels; make it smaller")
            image.load()
            return upright(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"more than {max_pixels or Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise InvalidInputError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except InvalidInputError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInputError(f"cannot be read: {reason or type(error).__name__}") from error


def check_image_shape(shape: Sequence[int] | None) -> None:
    """Check that image files can be made into items of this shape, (H, W, C) or None for any.

    Raises
    ------
    InvalidInputError
        If not.
    """
    if shape is not None and (len(shape) != 3 or shape[2] not in _MODES):
        raise InvalidInputError(
            f"the model takes {describe(shape)}, which image files cannot be made into; fit it on images of 1, 3 or 4 "
            "channels, or give it their image_shape"
        )


def as_item(image: Image.Image, shape: Sequence[int] | None, pixel_range: tuple[float, float] | None) -> Any:
    """An image as a classifier was fitted on them: of its size, its channels and its range.

    Parameters
    ----------
    image : PIL image
        Of any size and any mode of 8 bits.
    shape : (H, W, C) or None
        Size in pixels, to which the image is stretched, and 1 (grey), 3 (RGB) or 4 (RGBA) channels. None: RGB of its
        own size.
    pixel_range : (low, high) or None
        What black and white become; None for 0 and 255.

    Returns
    -------
    array `[H, W, C]`, uint8 for a range of 0 to 255 and else float; a PIL image for shape None
    """
    small = stretched(image, shape)
    return small if shape is None else scaled(np.asarray(small).reshape(*shape), pixel_range)


def stretched(image: Image.Image, shape: Sequence[int] | None) -> Image.Image:
    """An 8-bit image of the size and channels of a shape (H, W, C); RGB of its own size for None."""
    if shape is None:
        return convert(image, "RGB")
    height, width, channels = shape
    shrinks = image.width >= width and image.height >= height
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return convert(image, _MODES[channels]).resize((width, height), resample)


def read_pictures(X: Any, shape: Sequence[int] | None) -> Any:
    """PIL images and image files among the items of X, made to fit a model; any other X as it is.

    Parameters
    ----------
    X : anything
        What a user gave. In a list, tuple, column or array with PIL images or paths every item is read; there may be
        uint8 arrays among them.
    shape : (H, W) or (H, W, C), (d,) or None
        What the model takes: images are stretched to a size, and left as they are for any other shape.

    Returns
    -------
    list of PIL images, or X

    Raises
    ------
    InvalidInputError
        For a file that cannot be read, which it names, an image that cannot be used, or one that is in no list.
    """
    if isinstance(X, str | PathLike | Image.Image):
        raise InvalidInputError("X is one image; give a list of images: [image]")
    items = list(X) if isinstance(X, list | tuple) or getattr(X, "ndim", None) == 1 else []
    if not any(isinstance(item, str | PathLike | Image.Image) for item in items):
        return X
    if shape is not None and len(shape) > 1:
        shape = (*shape, 1)[:3]
        check_image_shape(shape)
    return [_picture(item, f"image {i}", shape) for i, item in enumerate(items)]


def _picture(item: Any, name: str, shape: Sequence[int] | None) -> Image.Image:
    """An item as a PIL image; the error says which one it is."""
    is_file = isinstance(item, str | PathLike)
    try:
        if is_file and Path(item).is_dir():
            raise InvalidInputError("a folder; give the files in it")
        image = open_image(Path(item)) if is_file else as_pil(item)
        of_any_size = shape is None and not is_file  # which is the tiers' own to convert
        return image if of_any_size or (shape is not None and len(shape) == 1) else stretched(image, shape)
    except InvalidInputError as error:
        raise InvalidInputError(f"{item if is_file else name}: {error}") from error
