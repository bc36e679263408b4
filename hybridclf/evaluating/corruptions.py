"""Corrupted copies of images: eight corruptions of CIFAR-10-C's families (arXiv 1903.12261), drawn by kornia.

The severities are ours, so figures do not compare with published ones on CIFAR-10-C.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.decoding import convert
from ..errors import InvalidInputError
from ..fitting.corruptions import toward_mean
from ..utils.installing import require
from .shifted import Shifted
from .study import Study

__all__ = ["FAMILIES", "SEVERITIES", "STRENGTHS", "corrupted", "corrupted_copies", "require_kornia"]

SEVERITIES = (1, 2, 3, 4, 5)

STRENGTHS: dict[str, tuple[Any, ...]] = {
    "Gaussian noise": (0.04, 0.06, 0.08, 0.11, 0.15),  # standard deviation, of pixels in [0, 1]
    "impulse noise": (0.01, 0.02, 0.04, 0.07, 0.11),  # share of pixels
    "Gaussian blur": (0.4, 0.6, 0.8, 1.1, 1.5),  # standard deviation, pixels of an image of 32 a side
    "motion blur": (3, 5, 7, 9, 11),  # length, pixels of an image of 32 a side
    "fog": (0.3, 0.6, 0.9, 1.3, 1.8),  # amount of white clouds over the image
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added
    "contrast": (0.75, 0.55, 0.4, 0.28, 0.18),  # factor
    "JPEG": (60, 35, 20, 12, 7),  # quality
}

FAMILIES = {
    "noise": ("Gaussian noise", "impulse noise"),
    "blur": ("Gaussian blur", "motion blur"),
    "weather": ("fog", "brightness"),
    "digital": ("contrast", "JPEG"),
}

IMAGES = 200
"""Test images per severity at most; each has one of the corruptions."""


def require_kornia() -> Any:
    """The package kornia's augmentations.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return require("kornia.augmentation", "corrupted images need", "corrupt")


def corrupted(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images uint8 `[n, H, W, 3]` under a corruption of severity 1 to 5; the same seed draws the same ones."""
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    scale = min(images.shape[1:3]) / 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = _drawn(name, STRENGTHS[name][severity - 1], scale)(x)
    return (out.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def corrupted_copies(study: Study) -> list[Shifted]:
    """Copies of a study's test images by severity, whose groups are the corruptions: one per image, in turn.

    Raises
    ------
    InvalidInputError
        For vectors, which have no such corruptions.
    MissingDependencyError
        If kornia is not installed.
    """
    require_kornia()
    chosen = np.array(study.examples(np.ones(len(study.test), dtype=bool), IMAGES))
    images, y = study.test_items.select(chosen).images, study.clf.classes_[study.test.y[chosen]]
    if np.ndim(images[0]) == 1:
        raise InvalidInputError("vectors cannot be corrupted as images are; leave `corrupt` out")
    if isinstance(images, np.ndarray) and images.shape[3] not in (1, 3):
        raise InvalidInputError(
            f"images of {images.shape[3]} channels cannot be corrupted, only of 1 or 3; leave `corrupt` out"
        )
    units = None if study.test.groups is None else study.test.groups[chosen]
    names = [list(STRENGTHS)[i % len(STRENGTHS)] for i in range(len(chosen))]
    copies = []
    for severity in SEVERITIES:
        bent = [_copy(image, study, names[i], severity, i) for i, image in enumerate(images)]
        together = np.stack(bent) if isinstance(images, np.ndarray) else bent
        copies.append(Shifted(f"corrupted, severity {severity}", together, y, names, units=units))
    return copies


def _copy(image: Any, study: Study, name: str, severity: int, seed: int) -> Any:
    """A corrupted image in the form of the given one: PIL, or an array in the classifier's range."""
    if isinstance(image, Image.Image):
        return Image.fromarray(corrupted(np.asarray(convert(image, "RGB"))[None], name, severity, seed)[0])
    low, high = study.clf.pixel_range_ or (0.0, 255.0)
    pixels = np.clip((image - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    bent = corrupted(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()[None], name, severity, seed)[0]
    bent = bent if image.shape[2] == 3 else bent.mean(axis=2, keepdims=True)
    scaled = low + bent * ((high - low) / 255)
    return (scaled.round() if np.issubdtype(image.dtype, np.integer) else scaled).astype(image.dtype)


def _fog(amount: float) -> Callable[[Tensor], Tensor]:
    """White clouds are added, and the whole is darkened to where it was brightest."""
    from kornia.contrib import diamond_square

    def clouded(x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        clouds = diamond_square((n, 1, height, width), roughness=0.5, normalize_range=(0.0, 1.0))
        brightest = x.amax(dim=(1, 2, 3), keepdim=True)
        return (x + amount * clouds) * brightest / (brightest + amount)

    return clouded


def _odd(size: float) -> int:
    """The odd number next to a size, at least 3."""
    return max(3, 2 * round((size - 1) / 2) + 1)


def _drawn(name: str, strength: Any, scale: float) -> Callable[[Tensor], Tensor]:
    """The corruption of images `[n, 3, H, W]` in [0, 1] whose sides are `scale` times 32 pixels."""
    K, size = require_kornia(), _odd(9 * scale)
    make: dict[str, Callable[[], Any]] = {
        "Gaussian noise": lambda: K.RandomGaussianNoise(std=strength, p=1.0),
        "impulse noise": lambda: K.RandomSaltAndPepperNoise(amount=strength, salt_vs_pepper=0.5, p=1.0),
        "Gaussian blur": lambda: K.RandomGaussianBlur((size, size), (strength * scale, strength * scale), p=1.0),
        "motion blur": lambda: K.RandomMotionBlur(
            _odd(strength * scale), (-45.0, 45.0), 0.0, border_type="replicate", p=1.0
        ),
        "fog": lambda: _fog(strength),
        "brightness": lambda: lambda x: x + strength,
        "contrast": lambda: lambda x: toward_mean(x, strength),
        "JPEG": lambda: K.RandomJPEG(jpeg_quality=(strength, strength), p=1.0),
    }
    return make[name]()
