"""Images of any kind as a diffusion model sees them: Appendix F.1 of arXiv 2303.16203."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from hybridclf.errors import InvalidInputError

__all__ = ["as_rgb", "pixels", "shortest_edge_crop"]


def pixels(images: Any, size: int) -> Iterator[Tensor]:
    """Each image as float32 `[3, size, size]` in [-1, 1].

    Parameters
    ----------
    images : list of PIL images or uint8 arrays, or one uint8 array `[n, H, W]` or `[n, H, W, C]`
        Of any size and mode.
    size : int
        Edge of the square that the model takes.

    Raises
    ------
    InvalidInputError
        For anything else.
    """
    for image in images:
        array = np.array(shortest_edge_crop(as_rgb(image), size))
        yield torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


def as_rgb(image: Any) -> Image.Image:
    """A PIL image or a uint8 array `[H, W]` or `[H, W, C]` (C = 1, 3 or 4) as RGB, upright as its camera meant it.

    What Pillow's own conversion makes of palettes, CMYK and alpha (which is dropped) holds; 16-bit grey is scaled to
    8 bits, and of an animation the current frame is taken.

    Raises
    ------
    InvalidInputError
        For anything else, floating-point and 32-bit pixels among it: their range is unknown.
    """
    if not isinstance(image, Image.Image):
        return Image.fromarray(_checked(np.asarray(image))).convert("RGB")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidInputError(
            f"an image of 32-bit numbers (mode {image.mode}) has no known range; convert it to 8 bits"
        )
    if "transparency" in image.info:  # else Pillow warns
        image = image.convert("RGBA")
    return image.convert("RGB")


def _checked(array: np.ndarray) -> np.ndarray:
    grey = array.ndim == 3 and array.shape[2] == 1
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits or not array.size:
        raise InvalidInputError(
            f"an image must be a PIL image or a uint8 array [H, W], [H, W, 3] or [H, W, 4]; got shape {array.shape} of "
            f"{array.dtype}"
        )
    return array[..., 0] if grey else array


def shortest_edge_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre square of an image whose shortest edge was resized to `size`, bicubic; rounded as torchvision does."""
    short = min(image.size)
    width, height = (size if edge == short else int(size * edge / short) for edge in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
