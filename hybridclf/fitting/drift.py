"""Drift: how far images look from the calibration images, and how much less tier 1 is believed for it.

Tier 1 grows over-sure on images that are noisier, blurred, paler or darker than those it learned from. Looks need no
label and no evaluation, so they are there before tier 2 is asked, and decide whether it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf

from ..utils.progress import progress_bar
from .corruptions import CORRUPTIONS, corrupt

__all__ = ["Drift", "DriftSample", "distances", "looks_of", "mean_and_precision"]

FEWEST, MOST = 30, 500
"""Images that a drift is fitted on: with fewer there is none."""

USUAL = 0.97
"""Share of the calibration images that are usual in one of their looks: for an image usual in all nothing changes."""

STEEPEST = 12.0
"""Upper bound of an exponent."""

AT_ONCE = 64
"""Images whose looks are measured at a time: large ones take 4 MB each."""

SMOOTHEST, LEAST = 0.1, 0.01
"""Share of the blocks that are ground; differences of a hundredth of the range count as none."""


def looks_of(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Brightness, contrast, edges, grain and ground of images, `[n, 5]`.

    The first is the mean pixel. The others are logarithms: of the pixels' standard deviation, of the root mean square
    difference between neighbours in a row and of what a plane does not explain in blocks of two by two pixels, and of
    what it does not explain in the smoothest tenth of these blocks. Noise raises the last three, blur lowers them; in
    drawings the ground alone tells noise from strokes.

    Parameters
    ----------
    images : array `[n, H, W, C]`
        Images of at least 2 by 2 pixels.
    low, high : float
        Pixel values of black and white.
    """
    parts = [_looks_of(images[i : i + AT_ONCE], low, high) for i in range(0, max(1, len(images)), AT_ONCE)]
    return np.concatenate(parts)


def _looks_of(images: np.ndarray, low: float, high: float) -> np.ndarray:
    x = (images.astype(np.float32) - low) / (high - low)
    across = np.diff(x, axis=2)
    blocks = np.diff(across, axis=1)
    parts = x - x.mean(axis=(1, 2), keepdims=True), across, blocks
    sizes = [np.sqrt(np.square(part).mean(axis=(1, 2, 3))) for part in parts]
    ground = np.quantile(np.abs(blocks).reshape(len(x), -1), SMOOTHEST, axis=1)
    return np.stack([x.mean(axis=(1, 2, 3)), *np.log(np.stack([*sizes, ground]) + LEAST)], axis=1).astype(float)


@dataclass(frozen=True)
class DriftSample:
    """Looks of m images that tier 1 has not seen, and its answers to r corrupted copies of them.

    Attributes
    ----------
    clean : float array `[m, 5]`
        Looks of the images as they are.
    corrupted : float array `[r, 5]`
        Looks of the copies.
    log_prior : float array `[r, C]`
        Tier 1's log-probabilities of the copies.
    y : int array `[r]`
        Their right classes.
    of : int array `[r]`
        Position of each copy's image among the m.
    pixel_range : (low, high)
        Pixel values of black and white.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    log_prior: np.ndarray
    y: np.ndarray
    of: np.ndarray
    pixel_range: tuple[float, float]

    @classmethod
    def record(
        cls,
        log_proba: Callable[[np.ndarray], np.ndarray],
        images: np.ndarray,
        y: np.ndarray,
        pixel_range: tuple[float, float],
        seed: int,
        progress: bool = False,
    ) -> Self:
        """Ask tier 1 about a copy of each of at most `MOST` images under every one of `CORRUPTIONS`.

        Parameters
        ----------
        log_proba : function
            From images to tier 1's log-probabilities `[n, C]`.
        images : array `[n, H, W, C]`
            Images.
        y : int array `[n]`
            Their right classes.
        pixel_range : (low, high)
            Pixel values of black and white.
        seed : int
            Decides strengths and noise.
        progress : bool
            Show a progress bar.
        """
        rng, chosen, right = np.random.default_rng(seed), images[:MOST], y[:MOST]
        looks, answers = [], []
        # one after the other, as copies of large images take gigabytes
        for kind in progress_bar(CORRUPTIONS, desc="ask tier 1 about corrupted copies", unit="kind", show=progress):
            copies = corrupt(chosen, kind, *pixel_range, rng)
            looks.append(looks_of(copies, *pixel_range))
            answers.append(log_proba(copies))
        return cls(
            looks_of(images, *pixel_range),
            np.concatenate(looks),
            np.concatenate(answers),
            np.tile(right, len(CORRUPTIONS)),
            np.tile(np.arange(len(right)), len(CORRUPTIONS)),
            pixel_range,
        )

    @classmethod
    def of_looks(cls, looks: np.ndarray, n_classes: int, pixel_range: tuple[float, float]) -> Self:
        """The looks `[m, 5]` of images without any copy."""
        none = np.empty(0, dtype=int)
        return cls(looks, np.empty((0, looks.shape[1])), np.empty((0, n_classes)), none, none, pixel_range)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Samples of different folds as one."""
        # positions count within a fold, as in `Recording.join`
        names = ("clean", "corrupted", "log_prior", "y")
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        starts = np.cumsum([0, *(len(part.clean) for part in parts[:-1])])
        of = np.concatenate([part.of + start for part, start in zip(parts, starts, strict=True)])
        return replace(parts[0], **joined, of=of)

    def select(self, images: np.ndarray) -> Self:
        """The sample of some of the m images, by bool `[m]` or position, and of their copies."""
        # Where each image is now; -1: left out. Images (2, 0) of three: (1, -1, 0).
        places = np.full(len(self.clean), -1)
        places[images] = np.arange(len(self.clean[images]))
        kept = places[self.of] >= 0
        return replace(
            self,
            clean=self.clean[images],
            corrupted=self.corrupted[kept],
            log_prior=self.log_prior[kept],
            y=self.y[kept],
            of=places[self.of[kept]],
        )


@dataclass(frozen=True)
class Drift:
    """Flattens tier 1's prior for images that look unlike those it was calibrated on.

    Each look is standardised. Where its size is d times the highest usual one, the log prior is divided by d to the
    power of the look's exponent; for usual looks, d ≤ 1, it stays as it is. With sizes of 2 and 0.5 and exponents of 1
    and 3 the log prior is halved.

    Parameters
    ----------
    pixel_range : (low, high)
        Pixel values of black and white.
    mean, scale : tuple of float `[5]`
        Mean and standard deviation of the calibration images' looks.
    limits : tuple of float `[5]`
        Highest usual sizes.
    exponents : tuple of float `[5]`
        ≥ 0; 0 changes nothing.
    """

    pixel_range: tuple[float, float]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    limits: tuple[float, ...]
    exponents: tuple[float, ...]

    def __post_init__(self) -> None:  # lists, from JSON
        for name in ("pixel_range", "mean", "scale", "limits", "exponents"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def fit(cls, sample: DriftSample, prior_alone: float) -> Self | None:
        """Fit the usual looks, and the exponents by the likelihood of tier 1's answers to the corrupted copies.

        Returns None for fewer than `FEWEST` images, whose looks say too little, or without copies.

        Parameters
        ----------
        sample : DriftSample
            Looks and answers.
        prior_alone : float
            Inverse temperature of tier 1 on usual images.
        """
        if len(sample.clean) < FEWEST or not len(sample.y):
            return None
        usual = cls.of_usual(sample)
        # log d [r, 5], so that the factor Π d^-exponent is exp(-beyond @ exponents)
        beyond = usual.log_sizes(sample.corrupted)
        index, scaled = np.arange(len(sample.y)), prior_alone * sample.log_prior

        def loss(exponents: np.ndarray) -> float:
            scores = log_softmax(scaled * np.exp(-beyond @ exponents)[:, None], axis=1)
            # a weak pull to 0, which decides where copies say nothing of a look
            return float(-scores[index, sample.y].mean() + np.square(exponents).sum() / (2 * len(index)))

        best = minimize(loss, np.full(beyond.shape[1], 0.5), bounds=[(0.0, STEEPEST)] * beyond.shape[1]).x
        return replace(usual, exponents=np.round(best, 2).tolist())

    @classmethod
    def of_usual(cls, sample: DriftSample) -> Self:
        """Fit the usual looks alone: all exponents are 0."""
        mean, scale = sample.clean.mean(axis=0), np.maximum(sample.clean.std(axis=0), 1e-2)
        limits = np.maximum(np.quantile(np.abs(sample.clean - mean) / scale, USUAL, axis=0), 1.0)
        return cls(sample.pixel_range, mean.tolist(), scale.tolist(), limits.tolist(), (0.0,) * len(mean))

    def __call__(self, log_prior: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The log prior `[n, C]` of images `[n, H, W, C]`, flattened by how far each looks from usual."""
        return self.flattened(log_prior, looks_of(images, *self.pixel_range))

    def flattened(self, log_prior: np.ndarray, looks: np.ndarray) -> np.ndarray:
        """The log prior `[n, C]` of images with these looks `[n, 5]`; probabilities still sum to one."""
        factors = self.factors(looks)[:, None]
        return np.where(factors < 1, log_softmax(factors * log_prior, axis=1), log_prior)

    def factors(self, looks: np.ndarray) -> np.ndarray:
        """Factors `[n]` on the log prior of images with these looks `[n, 5]`, in (0, 1]."""
        return np.exp(-self.log_sizes(looks) @ np.array(self.exponents))

    def unusual(self, looks: np.ndarray) -> np.ndarray:
        """Tell for which looks `[n, 5]` tier 1 is believed less, bool `[n]`."""
        return self.factors(looks) < 1

    def log_sizes(self, looks: np.ndarray) -> np.ndarray:
        """Logarithms `[n, 5]` of the looks' sizes over the highest usual ones, at least 0."""
        size = np.abs(looks - np.array(self.mean)) / np.array(self.scale)
        return np.log(np.maximum(size / np.array(self.limits), 1.0))


def mean_and_precision(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[d]` and inverse covariance `[d, d]` of values `[n, d]`, shrunk as Ledoit and Wolf do."""
    mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3)
    covariance = ledoit_wolf((values - mean) / scale)[0] + 1e-6 * np.eye(len(mean))  # 0 for images of one look
    return mean, np.linalg.inv(covariance) / np.outer(scale, scale)


def distances(values: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mahalanobis distances `[n]` of values `[n, d]` from a mean `[d]`."""
    off = values - mean
    # sqrt(off_n' P off_n) for each n
    return np.sqrt(np.einsum("ni,ij,nj->n", off, precision, off))
