"""Shifted data: corruptions of the families of CIFAR-10-C (arXiv 1903.12261), drawn by kornia.

The severities are ours, so figures do not compare with published ones on CIFAR-10-C.
"""

from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from kornia.contrib import diamond_square
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)

STRENGTHS: dict[str, tuple[Any, ...]] = {
    "Gaussian noise": (0.04, 0.06, 0.08, 0.11, 0.15),  # standard deviation, of pixels in [0, 1]
    "impulse noise": (0.01, 0.02, 0.04, 0.07, 0.11),  # share of pixels
    "Gaussian blur": (0.4, 0.6, 0.8, 1.1, 1.5),  # standard deviation, pixels
    "motion blur": (3, 5, 7, 9, 11),  # length, pixels
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


def corrupted(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images uint8 `[n, H, W, 3]` under a corruption of severity 1 to 5; the same seed draws the same ones."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = _DRAWN[name](STRENGTHS[name][severity - 1])(x)
    return (out.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _contrast(factor: float) -> Callable[[Tensor], Tensor]:
    """Towards the image's mean."""

    def toward_mean(x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return mean + factor * (x - mean)

    return toward_mean


def _fog(amount: float) -> Callable[[Tensor], Tensor]:
    """White clouds are added, and the whole is darkened to where it was brightest."""

    def clouded(x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        clouds = diamond_square((n, 1, height, width), roughness=0.5, normalize_range=(0.0, 1.0))
        brightest = x.amax(dim=(1, 2, 3), keepdim=True)
        return (x + amount * clouds) * brightest / (brightest + amount)

    return clouded


_DRAWN: dict[str, Callable[[Any], Any]] = {
    "Gaussian noise": lambda s: K.RandomGaussianNoise(std=s, p=1.0),
    "impulse noise": lambda s: K.RandomSaltAndPepperNoise(amount=s, salt_vs_pepper=0.5, p=1.0),
    "Gaussian blur": lambda s: K.RandomGaussianBlur((9, 9), (s, s), p=1.0),
    "motion blur": lambda s: K.RandomMotionBlur(s, (-45.0, 45.0), 0.0, border_type="replicate", p=1.0),
    "fog": _fog,
    "brightness": lambda s: lambda x: x + s,
    "contrast": _contrast,
    "JPEG": lambda s: K.RandomJPEG(jpeg_quality=(s, s), p=1.0),
}
