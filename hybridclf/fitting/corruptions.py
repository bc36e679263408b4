"""Cheap corruptions of images, to fit a drift on.

Those of `evaluating.corruptions` have fixed severities and are drawn by kornia, an extra. A fit has to do without it,
and takes arrays of any range and number of channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["CORRUPTIONS", "corrupt", "toward_mean"]

Strengths = np.ndarray
Corruption = Callable[[np.ndarray, Strengths, np.random.Generator], np.ndarray]


def _noise(x: np.ndarray, strength: Strengths, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, its standard deviation 0.04 to 0.2."""
    deviation = 0.04 + 0.16 * strength
    return x + deviation[:, None, None, None] * rng.standard_normal(x.shape)


def _blur(x: np.ndarray, strength: Strengths, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, its standard deviation 1/80 to 1/20 of the image's height, and at least 0.4 to 1.6 pixels."""
    deviation = max(x.shape[1], 32) * (0.0125 + 0.0375 * strength)
    return np.stack([gaussian_filter(image, (s, s, 0), mode="nearest") for image, s in zip(x, deviation, strict=True)])


def _contrast(x: np.ndarray, strength: Strengths, rng: np.random.Generator) -> np.ndarray:
    """Differences from the image's mean, multiplied by 0.8 down to 0.15."""
    return np.asarray(toward_mean(x, (0.8 - 0.65 * strength)[:, None, None, None]))


def _brightness(x: np.ndarray, strength: Strengths, rng: np.random.Generator) -> np.ndarray:
    """All pixels brighter or darker by 0.1 to 0.5."""
    change = (0.1 + 0.4 * strength) * rng.choice([-1.0, 1.0], len(x))
    return x + change[:, None, None, None]


def toward_mean(x: Any, factor: Any) -> Any:
    """Images `[n, …]` of 4 dimensions, arrays or tensors, their differences from each one's mean times a factor."""
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return mean + factor * (x - mean)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
}
"""Functions of images in [0, 1], float `[n, H, W, C]`, their strengths in [0, 1], `[n]`, and a generator."""


def corrupt(images: np.ndarray, kind: str, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Images under a corruption of random strength, float and clipped to their range.

    Parameters
    ----------
    images : array `[n, H, W, C]`
        Images.
    kind : str
        One of `CORRUPTIONS`.
    low, high : float
        Pixel values of black and white.
    rng : Generator
        Decides strengths and noise.
    """
    x = (images.astype(float) - low) / (high - low)
    return CORRUPTIONS[kind](x, rng.uniform(size=len(x)), rng).clip(0, 1) * (high - low) + low
