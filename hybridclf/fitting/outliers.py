"""Conformal p-values of images against the calibration images: is this any of the classes at all?"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from .drift import distances, mean_and_precision

__all__ = ["FEWEST_IMAGES", "NoveltyTest", "traits_of"]

FEWEST_IMAGES = 60
"""Calibration images that a test needs: half of them say what is usual, the others how unusual they are beside it."""


def traits_of(looks: np.ndarray, lowest_error: np.ndarray) -> np.ndarray:
    """Traits `[n, 6]` of images: their looks `[n, 5]`, and the logarithm of the lowest error of a first trial `[n]`.

    Neither does alone. A smooth image has low errors under every class, black ones the lowest of all; a photograph of
    something else looks like any photograph, and only its errors are high.
    """
    return np.column_stack([looks, np.log(np.maximum(lowest_error, 1e-12))])


@dataclass(frozen=True)
class NoveltyTest:
    """A test of whether an image is drawn as the calibration images were.

    The score of an image is Mahalanobis's distance of its traits. Its p-value is the share of the calibration images,
    itself among them, that score at least as high. For images drawn as those were, p ≤ a has a probability of at most
    a, for any number of images: split conformal prediction.

    Parameters
    ----------
    pixel_range : (low, high)
        Pixel values of black and white, for the looks.
    mean : tuple of float `[6]`
        Mean traits of one half of the calibration images.
    precision : tuple of tuples of float `[6][6]`
        Inverse of their covariance.
    scores : tuple of float `[m]`
        Scores of the other half, ascending.
    """

    pixel_range: tuple[float, float]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:  # lists, from JSON
        object.__setattr__(self, "pixel_range", tuple(self.pixel_range))
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "precision", tuple(map(tuple, self.precision)))
        object.__setattr__(self, "scores", tuple(self.scores))

    @classmethod
    def fit(cls, traits: np.ndarray, pixel_range: tuple[float, float], seed: int) -> Self | None:
        """Fit the test to the traits `[n, 6]` of calibration images; None for fewer than `FEWEST_IMAGES`."""
        if len(traits) < FEWEST_IMAGES:
            return None
        shuffled = np.random.default_rng(seed).permutation(traits)
        usual, scored = np.array_split(shuffled, 2)
        mean, precision = mean_and_precision(usual)
        return cls(pixel_range, mean.tolist(), precision.tolist(), np.sort(distances(scored, mean, precision)).tolist())

    def p_values(self, traits: np.ndarray) -> np.ndarray:
        """P-values `[n]` in (0, 1] of images with these traits `[n, 6]`; one that is not finite is the most novel."""
        finite = np.isfinite(traits).all(axis=1)
        score = np.full(len(traits), np.inf)
        score[finite] = distances(traits[finite], np.array(self.mean), np.array(self.precision))
        at_least = len(self.scores) - np.searchsorted(self.scores, score, side="left")
        return (1 + at_least) / (1 + len(self.scores))
