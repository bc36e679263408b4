"""Conformal p-values of images against the calibration images: is this any of the classes at all?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Self

import numpy as np

from ..denoising.weighting import uniform_weights
from ..errors import InvalidInputError
from ..ports import Label
from ..reranker import Reranker
from ..reranking.evidence import RerankResult
from .drift import distances, mean_and_precision
from .validation import check_parameters

__all__ = [
    "FEWEST_IMAGES",
    "NoveltyTest",
    "check_novel_label",
    "lowest_errors",
    "name_novel",
    "novelty_test",
    "reject_novel",
    "traits_of",
]

FEWEST_IMAGES = 60
"""Calibration images, or groups of such, that a test needs.

Half of them say what is usual, the others how unusual they are beside it.
"""

_FITTING = {"U": "U", "b": "b", "i": "iu", "u": "iu", "f": "iuf"}
"""Kinds of numpy types that a column of each kind can hold."""


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
    def fit(
        cls, traits: np.ndarray, pixel_range: tuple[float, float], seed: int, units: np.ndarray | None = None
    ) -> Self | None:
        """Fit the test to the traits `[n, 6]` of calibration images; None for fewer than `FEWEST_IMAGES` groups.

        Scores are those of independent images: of a group there is one, by chance, and the group is in one half. Group
        numbers `[n]` are from 0 on; without them each image is alone.
        """
        rng, units = np.random.default_rng(seed), np.arange(len(traits)) if units is None else units
        shuffled = rng.permutation(len(traits))
        groups, first = np.unique(units[shuffled], return_index=True)
        if len(groups) < FEWEST_IMAGES:
            return None
        usual, scored = np.array_split(rng.permutation(len(groups)), 2)
        mean, precision = mean_and_precision(traits[np.isin(units, groups[usual])])
        scores = np.sort(distances(traits[shuffled[first[scored]]], mean, precision))
        return cls(pixel_range, mean.tolist(), precision.tolist(), scores.tolist())

    def p_values(self, traits: np.ndarray) -> np.ndarray:
        """P-values `[n]` in (0, 1] of images with these traits `[n, 6]`; one that is not finite is the most novel."""
        finite = np.isfinite(traits).all(axis=1)
        score = np.full(len(traits), np.inf)
        score[finite] = distances(traits[finite], np.array(self.mean), np.array(self.precision))
        # scores (1, 2, 5) and an image of 2: two are at least as high, and with the image itself p = 3/4
        at_least = len(self.scores) - np.searchsorted(self.scores, score, side="left")
        return (1 + at_least) / (1 + len(self.scores))


def novelty_test(clf: Any) -> NoveltyTest:
    """The test of novelty of a fitted `HybridClassifier`.

    Raises
    ------
    InvalidInputError
        For parameters out of range, no test, or one on too few images for the rate of `reject`.
    """
    check_parameters(clf)  # set_params may have changed them
    test: NoveltyTest | None = clf.calibration_ and clf.calibration_.novelty
    if not test:
        raise InvalidInputError(
            f"novelty needs a calibration on at least {FEWEST_IMAGES} images of one size, of as many groups if they "
            "have any, that neither tier was trained on; call calibrate(X, y), or type hybridclf calibrate DATA OUT "
            "--model MODEL"
        )
    if clf.reject is not None and clf.reject * (len(test.scores) + 1) < 1:
        raise InvalidInputError(
            f"reject={clf.reject:g} is finer than {len(test.scores)} scores can tell, so that no image could be "
            f"rejected; call calibrate(X, y) with at least {2 * (ceil(1 / clf.reject) - 1):,} images, or raise reject"
        )
    return test


def lowest_errors(
    stage: Reranker, images: Any, candidates: Sequence[Sequence[Label]], progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest unweighted error of each image in the stage's trials, and its cost in evaluations, `[n]` each.

    It is infinite for an image with an error that is not finite.
    """
    stage.weighting = uniform_weights
    results = stage.rerank(images, candidates, progress=progress)
    lowest = [r.evidence.min() if r.stopped_by != "fallback" else np.inf for r in results]
    return np.array(lowest), np.array([r.evaluations for r in results])


def reject_novel(
    results: Sequence[RerankResult], p_values: np.ndarray, evaluations: np.ndarray, rate: float
) -> list[RerankResult]:
    """Results with the p-values `[n]` of their images and their cost; those of at most `rate` are rejected."""
    return [
        replace(result, evaluations=result.evaluations + cost, novelty=p, rejected=p <= rate)
        for result, p, cost in zip(results, p_values.tolist(), evaluations.tolist(), strict=True)
    ]


def check_novel_label(novel_label: Label | None, classes: np.ndarray) -> None:
    """Check that a `novel_label` is of the kind of the classes `[C]`, so that a column of labels can hold it.

    Raises
    ------
    InvalidInputError
        For text among numbers, a number among texts, or a fraction among whole numbers.
    """
    kind, own = (np.asarray(values).dtype.kind for values in (classes.tolist(), novel_label))
    if novel_label is not None and own not in _FITTING.get(kind, own):
        raise InvalidInputError(
            f"novel_label is {novel_label!r} and the classes are {classes.dtype}; give one of their kind, or None"
        )


def name_novel(labels: np.ndarray, results: Sequence[RerankResult], novel_label: Label | None) -> np.ndarray:
    """Labels `[n]` with `novel_label` for the images that were rejected."""
    rejected = np.array([result.rejected for result in results], dtype=bool)
    if not rejected.any():  # the labels keep their type
        return labels
    return np.where(rejected, np.asarray(novel_label), labels)
