"""Shifted data: corruptions of the families of CIFAR-10-C (arXiv 1903.12261), drawn by kornia.

The severities are ours, so figures do not compare with published ones on CIFAR-10-C.
"""

from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch

SEVERITIES = (1, 2, 3, 4, 5)

STRENGTHS: dict[str, tuple[Any, ...]] = {
    "Gaussian noise": (0.04, 0.06, 0.08, 0.11, 0.15),  # standard deviation, of pixels in [0, 1]
    "impulse noise": (0.01, 0.02, 0.04, 0.07, 0.11),  # share of pixels
    "Gaussian blur": (0.4, 0.6, 0.8, 1.1, 1.5),  # standard deviation, pixels
    "motion blur": (3, 5, 7, 9, 11),  # length, pixels
    "snow": (0.3, 0.4, 0.5, 0.6, 0.7),  # brightness below which pixels turn to snow
    "fog": (0.2, 0.35, 0.5, 0.65, 0.8),  # amount of a cloud added
    "contrast": (0.75, 0.55, 0.4, 0.28, 0.18),  # factor
    "JPEG": (60, 35, 20, 12, 7),  # quality
}

FAMILIES = {
    "noise": ("Gaussian noise", "impulse noise"),
    "blur": ("Gaussian blur", "motion blur"),
    "weather": ("snow", "fog"),
    "digital": ("contrast", "JPEG"),
}


def corrupted(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images uint8 `[n, H, W, 3]` under a corruption of severity 1 to 5; the same seed draws the same ones."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = _DRAWN[name](STRENGTHS[name][severity - 1])(x)
    return (out.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _contrast(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Towards the image's mean."""

    def toward_mean(x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return mean + factor * (x - mean)

    return toward_mean


_DRAWN: dict[str, Callable[[Any], Any]] = {
    "Gaussian noise": lambda s: K.RandomGaussianNoise(std=s, p=1.0),
    "impulse noise": lambda s: K.RandomSaltAndPepperNoise(amount=s, salt_vs_pepper=0.5, p=1.0),
    "Gaussian blur": lambda s: K.RandomGaussianBlur((9, 9), (s, s), p=1.0),
    "motion blur": lambda s: K.RandomMotionBlur(s, (-45.0, 45.0), 0.0, border_type="replicate", p=1.0),
    "snow": lambda s: K.RandomSnow(snow_coefficient=(s, s), brightness=(2.0, 2.0), p=1.0),
    "fog": lambda s: K.RandomPlasmaBrightness(roughness=(0.5, 0.5), intensity=(s, s), p=1.0),
    "contrast": _contrast,
    "JPEG": lambda s: K.RandomJPEG(jpeg_quality=(s, s), p=1.0),
}
