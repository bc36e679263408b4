"""A pair whose tier 2 is exact: classes are Gaussians, and tier 1 has seen a few noisy images of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from hybridclf import HybridClassifier, Race

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fly")


class World(NamedTuple):
    """A classifier, and images 3x4x1 of its classes with their labels."""

    clf: HybridClassifier
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def variance_denoiser(gaussian_denoiser: type) -> type:
    """The same denoiser with a learned variance and two prompts per class."""

    class WithVariance(gaussian_denoiser):  # type: ignore[misc]
        def condition(self, labels: Any) -> dict[str, torch.Tensor]:
            means = super().condition(labels)["mean"]
            return {"mean": torch.stack([means, 1.1 * means], dim=1).flatten(0, 1)}

        def predict_variance(self, x_t: Any, t: Any, row: Any, condition: Any) -> tuple[torch.Tensor, torch.Tensor]:
            predicted = self.predict(x_t, t, row, condition)
            return predicted, torch.full_like(predicted, -2.0)

        def previous_levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.noise_levels((t - 0.02).clamp(min=1e-3))

    return WithVariance


@pytest.fixture(scope="session")
def make_world(gaussian_denoiser: type) -> Callable[..., World]:
    """`make_world(n, kind, s, **options)`: n images, a denoiser of that kind with those options, spread s."""

    def make(n: int = 120, kind: type = gaussian_denoiser, s: float = 0.6, **options: Any) -> World:
        rng = np.random.default_rng(0)
        means = 0.6 * rng.standard_normal((len(CLASSES), 3, 4, 1))

        def draw(count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
            y = np.arange(count) % len(CLASSES)
            return means[y] + spread * rng.standard_normal((count, 3, 4, 1)), np.array(CLASSES)[y]

        few, of_few = draw(18, 3 * s)
        tier_1 = make_pipeline(FunctionTransformer(np.tanh), LogisticRegression(C=0.2))  # never very sure
        tier_1.fit(few.reshape(18, -1), of_few)
        denoiser = kind(dict(zip(CLASSES, means, strict=True)), s, **options)
        clf = HybridClassifier(FrozenEstimator(tier_1), denoiser, allocation=Race(0.97, 4), random_state=0)
        clf.fit(*draw(60, s))
        return World(clf, *draw(n, s))

    return make


@pytest.fixture(scope="session")
def world(make_world: Callable[..., World]) -> World:
    """120 images of six classes; nothing may change it."""
    return make_world()
