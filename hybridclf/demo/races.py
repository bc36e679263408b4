"""One image's race, watched step by step."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from ..estimator import HybridClassifier
from ..ports import Label
from .report import Trace

__all__ = ["watch"]


def watch(clf: HybridClassifier, X: Any, name: str, label: Label) -> Trace:
    """The race of one image, with every step; it is run even where the classifier found that races do not pay.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted classifier.
    X : as for `clf.predict`
        One image.
    name : str
        Its name, for the picture.
    label : label
        The right answer.
    """
    racing = copy(clf)
    racing.fusion_ = replace(clf.fusion_, pays=True, harmed=())
    ((candidates,), _), steps = racing.propose(X), list(racing.stream(X))
    ((_, result),) = (done for step in steps for done in step.finished)
    steps = [step for step in steps if len(step.images)]
    k = len(result.candidates)
    return Trace(
        name=name,
        image=np.asarray(X[0]),
        label=label,
        proposed=candidates[0],
        winner=result.ranking[0],
        stopped_by=result.stopped_by,
        confidence=getattr(racing.reranker().allocation, "confidence", None),
        candidates=result.candidates,
        evaluations=np.array([s.evaluations[0] for s in steps]),
        posterior=np.array([s.evidence.posterior[0, :k] for s in steps]),
        alive=np.array([s.evidence.alive[0, :k] for s in steps]),
    )
