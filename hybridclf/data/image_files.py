"""Image files, opened safely and converted to the items that a fitted classifier takes."""

import os
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from .arrays import as_pil, describe, scaled
from .decoding import FORMATS, MODES, read_image, stretched

__all__ = [
    "ENDINGS",
    "FORMATS",
    "PICTURES",
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

ENDINGS = tuple(
    [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
    + ([".avif"] if "AVIF" in FORMATS else [])
)
"""Endings of image files of the formats that are opened."""

PICTURES = (
    *ENDINGS,
    *[".avif", ".heic", ".heif", ".jp2", ".jxl"],
)
"""Endings of the files that are picked from a folder: one that cannot be opened must not be missed without a word."""


def image_paths(paths: Iterable[str | Path]) -> list[Path]:
    """Replace each folder among the paths by the images anywhere in it, sorted; files stay as they are.

    A folder without images stays in the list, and `open_image` raises its error.
    """
    return [found for path in map(Path, paths) for found in (files_in(path) or [path])]


def files_in(folder: Path, endings: Sequence[str] = PICTURES) -> list[Path]:
    """List the files anywhere in a folder that have one of the endings, sorted; skip hidden files and folders.

    Links to folders are followed; a folder that can be reached in several ways is listed once, by a way without links
    if there is one.

    Raises
    ------
    InvalidInputError
        If a folder in it cannot be read: its images would be missed.
    """
    return sorted(path for path in _visible(folder) if path.suffix.lower() in endings)


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files anywhere in a folder, but for hidden ones."""
    seen: set[str] = set()
    # os.path, which takes what it cannot look at for no folder; pathlib raises the system's error
    folders, links = [folder] if os.path.isdir(folder) else [], deque[Path]()
    while folders or links:
        parent = folders.pop() if folders else links.popleft()
        if (real := os.path.realpath(parent)) in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError as error:
            raise InvalidInputError(f"the folder {parent} cannot be read: {error.strerror}") from error
        for entry in entries:
            path = Path(entry)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            else:  # a link to itself too, whose error comes when it is read
                yield path


def try_image(source: str | Path | BinaryIO) -> Image.Image | InvalidInputError:
    """Open an image as `open_image` does, and return its error instead of raising it."""
    try:
        return open_image(source)
    except InvalidInputError as error:
        return error


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Open an image file, decode it in full and turn it by its EXIF orientation.

    Parameters
    ----------
    source : path or binary file
        Path of the file, or its content.

    Returns
    -------
    PIL image
        Of 8 bits.

    Raises
    ------
    InvalidInputError
        If it is missing, no image, damaged, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(source, str | Path) and os.path.isdir(source):
        raise InvalidInputError("a folder with no image in it (.png, .jpg, .webp, …)")
    # pathlib has made one slash of two
    if isinstance(source, str | Path) and re.match(r"(https?|s3|gs|ftp):/", str(source)):
        raise InvalidInputError("an address, and images are read from disk alone; download it and give the file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        return read_image(source, Image.MAX_IMAGE_PIXELS)


def check_image_shape(shape: Sequence[int] | None) -> None:
    """Check that image files convert to items of this shape: (H, W, C) with C = 1, 3 or 4, or None for any size.

    Raises
    ------
    InvalidInputError
        For any other shape.
    """
    if shape is not None and (len(shape) != 3 or shape[2] not in MODES):
        raise InvalidInputError(
            f"the model takes {describe(shape)}, which image files cannot be made into; fit it on images of 1, 3 or 4 "
            "channels, or give it their image_shape"
        )


def as_item(image: Image.Image, shape: Sequence[int] | None, pixel_range: tuple[float, float] | None) -> Any:
    """Convert an image to an item of the classifier: its size, its channels and its value range.

    Parameters
    ----------
    image : PIL image
        Of any size and any mode of 8 bits.
    shape : (H, W, C) or None
        Size in pixels, to which the image is stretched, and 1 (grey), 3 (RGB) or 4 (RGBA) channels. None: RGB of the
        image's own size.
    pixel_range : (low, high) or None
        Values of black and white; None for 0 and 255.

    Returns
    -------
    array `[H, W, C]` or PIL image
        uint8 for a range of 0 to 255, else float. A PIL image for shape None.
    """
    small = stretched(image, shape)
    return small if shape is None else scaled(np.asarray(small).reshape(*shape), pixel_range)


def read_pictures(X: Any, shape: Sequence[int] | None) -> Any:
    """Read the PIL images and image files in X and fit them to a model's shape; return any other X as it is.

    Parameters
    ----------
    X : anything
        The user's input. In a list, tuple, column or array that has PIL images or paths, every item is read; uint8
        arrays may be among them.
    shape : (H, W) or (H, W, C), (d,) or None
        Shape the model takes. Images are stretched to (H, W); for (d,) or None they keep their size.

    Returns
    -------
    list of PIL images, or X

    Raises
    ------
    InvalidInputError
        For a file that cannot be read or an image that cannot be used, by its name or position; for a single image
        outside a list, an iterator, and bytes.
    """
    if isinstance(X, str | PathLike | Image.Image):
        raise InvalidInputError("X is one image; give a list of images: [image]")
    if isinstance(X, Iterator):
        raise InvalidInputError("X can be read only once; give a list of images: list(X)")
    items = list(X) if isinstance(X, list | tuple) or getattr(X, "ndim", None) == 1 else []
    if any(isinstance(item, bytes) for item in items):
        raise InvalidInputError("X holds bytes; give paths or images: PIL.Image.open(io.BytesIO(content))")
    if not any(isinstance(item, str | PathLike | Image.Image) for item in items):
        return X
    if shape is not None and len(shape) > 1:
        shape = (*shape, 1)[:3]  # (H, W) means grey
        check_image_shape(shape)
    return [_picture(item, f"image {i}", shape) for i, item in enumerate(items)]


def _picture(item: Any, name: str, shape: Sequence[int] | None) -> Image.Image:
    """Convert one item to a PIL image; an error names the item."""
    is_file = isinstance(item, str | PathLike)
    try:
        if is_file and os.path.isdir(item):
            raise InvalidInputError("a folder; give the files in it")
        image = open_image(Path(item)) if is_file else as_pil(item)
        # a PIL image for a model of any size stays as it is: the tiers convert it by their own rules
        of_any_size = shape is None and not is_file
        return image if of_any_size or (shape is not None and len(shape) == 1) else stretched(image, shape)
    except InvalidInputError as error:
        raise InvalidInputError(f"{item if is_file else name}: {error}") from error
