"""Labels of requests: their resolution to classes, and tier 1's log-probabilities of them."""

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from ..data.arrays import Items
from ..errors import UnknownLabelError
from ..estimator import HybridClassifier
from ..ports import Label
from ..proposer import column_of

__all__ = ["RequestLabels"]

KEPT_LABEL_LISTS = 16
"""Classifiers of label lists that are cached."""

_LISTED = 20


class RequestLabels:
    """Resolver of a request's texts to labels, with tier 1's log-probabilities of them.

    A classifier with a fixed set of classes accepts these alone; one whose tiers read text accepts any text.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier.
    """

    def __init__(self, clf: HybridClassifier) -> None:
        self.clf = clf
        self._by_text = {str(label): label for label in clf.classes_.tolist()}
        self._classes = frozenset(self._by_text.values())
        self._fitting = Lock()
        self._for = lru_cache(KEPT_LABEL_LISTS)(clf.with_labels)

    def resolve(self, texts: Sequence[str]) -> tuple[Label, ...]:
        """Resolve texts to labels.

        Raises
        ------
        UnknownLabelError
            For a text that names no class, if the model reads no text.
        """
        unknown = [text for text in texts if text not in self._by_text]
        if unknown and not self.clf.reads_text:
            known = ", ".join(list(self._by_text)[:_LISTED])
            more = f" and {len(self._by_text) - _LISTED} more" if len(self._by_text) > _LISTED else ""
            raise UnknownLabelError(f"the model does not know the label {unknown[0][:100]!r}; it knows {known}{more}")
        return tuple(self._by_text.get(text, text) for text in texts)

    def log_prior(self, labels: tuple[Label, ...], image: Any) -> np.ndarray:
        """Compute tier 1's log-probabilities `[L]` of some labels for one image.

        Raises
        ------
        InvalidInputError
            For labels that the model's text encoder cannot tell apart.
        """
        own = Items.of_one(image)
        # the model's own classes: select columns instead of encoding texts
        if self._classes.issuperset(labels):
            columns = column_of(self.clf, labels)
            return self.clf._log_prior(own)[0, columns]
        if len(labels) == 1:  # certain, and a classifier needs two classes
            return np.zeros(1)
        with self._fitting:  # encoding the labels' texts once, not once per waiting request
            clf = self._for(labels)
        return clf._log_prior(own)[0]
