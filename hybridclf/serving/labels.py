"""What a request's labels mean to the classifier that is served."""

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import UnknownLabelError
from ..estimator import HybridClassifier
from ..ports import Label
from ..proposer import aligned_log_proba, column_of

__all__ = ["RequestLabels"]

KEPT_LABEL_LISTS = 16
"""Label lists whose classifiers are kept."""

_LISTED = 20


class RequestLabels:
    """From the texts in a request to the model's labels, and to what tier 1 says of them.

    A model whose proposer knows a fixed set of classes takes these alone; one that reads text takes any.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted one.
    """

    def __init__(self, clf: HybridClassifier) -> None:
        self.clf = clf
        self._by_text = {str(label): label for label in clf.classes_.tolist()}
        self._classes = frozenset(self._by_text.values())
        self._reads_text = not isinstance(clf.proposer_, BaseEstimator) and hasattr(clf.proposer_, "fit")
        self._fitting = Lock()
        self._for = lru_cache(KEPT_LABEL_LISTS)(clf.with_labels)

    def resolve(self, texts: Sequence[str]) -> tuple[Label, ...]:
        """The labels that these texts name.

        Raises
        ------
        UnknownLabelError
            For a text that is none of the classes of a model that knows no others.
        """
        unknown = [text for text in texts if text not in self._by_text]
        if unknown and not self._reads_text:
            known = ", ".join(list(self._by_text)[:_LISTED])
            more = f" and {len(self._by_text) - _LISTED} more" if len(self._by_text) > _LISTED else ""
            raise UnknownLabelError(f"the model does not know the label {unknown[0][:100]!r}; it knows {known}{more}")
        return tuple(self._by_text.get(text, text) for text in texts)

    def log_prior(self, labels: tuple[Label, ...], image: Any) -> np.ndarray:
        """Tier 1's log-probabilities `[L]` of these labels for one image.

        Raises
        ------
        InvalidInputError
            For labels that the model's text encoder cannot tell apart.
        """
        images = [image] if self.clf.image_shape_ is None else np.asarray(image)[None]
        if self._classes.issuperset(labels):
            columns = column_of(self.clf, labels)
            return aligned_log_proba(self.clf.proposer_, images, self.clf.classes_)[0, columns]
        if len(labels) == 1:
            return np.zeros(1)
        with self._fitting:
            clf = self._for(labels)
        return aligned_log_proba(clf.proposer_, images, clf.classes_)[0]
