"""Questions about images: choices of the right one among a classifier's classes, or among captions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax
from sklearn.utils import check_consistent_length, column_or_1d

from ..captions import check_captions, different_texts, tier_1_scores, without_template
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..fitting.validation import class_numbers
from ..ports import Denoiser, Label
from ..proposer import aligned_log_proba

__all__ = ["Questions"]

RIVALS = 20
"""Most wrong classes of an image: the likeliest by tier 1."""


@dataclass(frozen=True)
class Questions:
    """Images with the labels that each is asked about.

    Attributes
    ----------
    images : list or array of n images
        Images as tier 2 takes them.
    labels : list of L labels
        All labels.
    candidates : list of n lists of int `[k]`
        Positions of an image's labels, the right one first.
    log_prior : list of n arrays `[k]`
        Tier 1's log-probabilities of them.
    y : array `[n]` or None
        Labels of the images among the classifier's classes; None for captions.
    denoiser : Denoiser
        Tier 2, reading the labels as they are meant.
    """

    images: Any
    labels: list[Label]
    candidates: list[list[int]]
    log_prior: list[np.ndarray]
    y: np.ndarray | None
    denoiser: Denoiser

    @classmethod
    def of_classes(cls, clf: HybridClassifier, X: Any, y: Any) -> Self:
        """Ask which class each image is of: the right one and the likeliest others.

        Raises
        ------
        InvalidInputError
            For images that cannot be used, or labels that the classifier does not know.
        """
        items, y = clf._read(X), column_or_1d(y)
        check_consistent_length(items.images, y)
        numbers = class_numbers(y, clf.classes_)
        log_prior = aligned_log_proba(clf.proposer_, items, clf.classes_)
        candidates = []
        for row, right in zip(log_prior, numbers.tolist(), strict=True):
            order = np.argsort(-row, kind="stable").tolist()
            candidates.append([right, *(c for c in order if c != right)][: 1 + RIVALS])
        own = [row[c] for row, c in zip(log_prior, candidates, strict=True)]
        return cls(items.images, clf.classes_.tolist(), candidates, own, y, clf.denoiser_)

    @classmethod
    def of_captions(cls, clf: HybridClassifier, X: Any, captions: Sequence[Sequence[str]]) -> Self:
        """Ask which caption each image has; the first of its captions is right.

        Raises
        ------
        InvalidTypeError
            If tier 2 is no model of text.
        InvalidInputError
            For images that cannot be used, or captions that are empty, no texts, or alone.
        """
        denoiser, images = without_template(clf.denoiser_), clf._read(X).images
        listed = check_captions(captions, len(images))
        if alone := [i for i, own in enumerate(listed) if len(own) < 2]:
            raise InvalidInputError(f"image {alone[0]} has one caption; give at least two, the right one first")
        labels = different_texts(listed)[:-1]
        number = {label: i for i, label in enumerate(labels)}
        scores = tier_1_scores(clf.proposer_, images, listed)
        # a tier 1 that reads no text finds all captions alike
        log_prior = [log_softmax(np.zeros(len(c)) if s is None else s) for s, c in zip(scores, listed, strict=True)]
        return cls(images, labels, [[number[c] for c in own] for own in listed], log_prior, None, denoiser)

    @property
    def digest(self) -> str:
        """Hash of the images and their labels, a short text."""
        digest = hashlib.blake2b(repr((self.labels, self.candidates)).encode(), digest_size=16)
        for image in self.images:
            digest.update(np.ascontiguousarray(np.asarray(image)).data)
        return digest.hexdigest()

    def select(self, index: np.ndarray) -> tuple[Any, list[list[Label]]]:
        """Images at positions `[m]`, and their labels, the right one first."""
        images = self.images[index] if isinstance(self.images, np.ndarray) else [self.images[i] for i in index]
        return images, [[self.labels[c] for c in self.candidates[i]] for i in index]
