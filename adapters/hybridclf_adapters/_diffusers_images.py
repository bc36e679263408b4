"""Preparation of images for a diffusion model (Appendix F.1 of arXiv 2303.16203)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridclf.data.arrays import as_pil
from hybridclf.data.decoding import convert

__all__ = ["pixels", "shortest_edge_crop"]


def pixels(images: Any, size: int, mode: str = "RGB") -> Iterator[Tensor]:
    """Convert images one by one to float32 `[C, size, size]` in [-1, 1].

    Parameters
    ----------
    images : list of PIL images or uint8 arrays, or one uint8 array `[n, H, W]` or `[n, H, W, C]`
        Images of any size and mode.
    size : int
        Edge of the model's square input.
    mode : "RGB" or "L"
        Colours or shades of grey: three channels or one.

    Raises
    ------
    InvalidInputError
        For anything else.
    """
    for image in images:
        array = np.array(shortest_edge_crop(convert(as_pil(image), mode), size))
        yield torch.from_numpy(array).view(size, size, -1).permute(2, 0, 1).float() / 127.5 - 1


def shortest_edge_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize an image's shortest edge to `size`, bicubic, and crop the centre square; rounding as in torchvision."""
    short = min(image.size)
    # int() truncates the longer edge, round() centres the crop
    width, height = (size if edge == short else int(size * edge / short) for edge in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
