"""Frozen features of a pretrained network, and their speed."""

import time

import numpy as np

from ..ports import FeatureModel
from ..utils.progress import progress_bar

__all__ = ["features_of", "seconds_per_image"]

BATCH, TIMED = 16, 16
"""Images per call of a feature model, and images that its speed is measured on.

Batches of 64 took a quarter longer on a CPU: maps of more than 32 MB are allocated anew by every layer.
"""


def features_of(model: FeatureModel, photos: np.ndarray, progress: bool) -> np.ndarray:
    """Compute the features `[n, d]`, float32, of images `[n, H, W, 3]`, with a progress bar if asked for."""
    parts = []
    with progress_bar(total=len(photos), desc="features", unit="image", show=progress) as bar:
        for i in range(0, len(photos), BATCH):
            parts.append(model.features(photos[i : i + BATCH]))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def seconds_per_image(model: FeatureModel, photos: np.ndarray) -> float:
    """Time of the features of one image, by that of a few."""
    some = photos[:TIMED]
    model.features(some)  # the first call allocates memory
    begin = time.perf_counter()
    model.features(some)
    return (time.perf_counter() - begin) / len(some)
