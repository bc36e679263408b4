"""Measured result of a tuning: tier 2 before and after, on images that it was not tuned on."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ..captions import without_template
from ..estimator import HybridClassifier
from ..metrics import accuracy, accuracy_difference
from ..ports import Denoiser
from ..reranker import Reranker
from ..reranking.allocation import FixedTrials
from .questions import Questions
from .split import Split

__all__ = ["measure"]

TRIALS = 16
"""Trials of each image by which tier 2 alone is measured."""


def measure(
    clf: HybridClassifier, tuned: HybridClassifier, questions: Questions, split: Split, progress: bool
) -> dict[str, Any]:
    """Measure both classifiers on images that nothing was fitted or chosen on.

    Parameters
    ----------
    clf, tuned : HybridClassifier
        Classifier before and after tuning.
    questions : Questions
        Images and their labels.
    split : Split
        Positions of the images to measure on, and groups, for which the intervals allow.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        Plain JSON: "n", images; by method "accuracy" with its interval (95 %), and "gain", the paired difference of
        each method after tuning and before.
    """
    index, groups = split.measured, split.groups[split.measured]
    right = {
        "tier 1": np.array([prior[0] > prior[1:].max() for prior in (questions.log_prior[i] for i in index)]),
        "tier 2 before": _right(clf.denoiser_, clf, questions, index, progress),
        "tier 2 after": _right(tuned.denoiser_, clf, questions, index, progress),
    }
    if questions.y is not None:
        images = questions.select(index)[0]
        for name, one in (("hybrid before", clf), ("hybrid after", tuned)):
            right[name] = one.predict(images) == questions.y[index]
    tiers = ("tier 2", "hybrid") if questions.y is not None else ("tier 2",)
    pairs = {tier: (right[f"{tier} after"], right[f"{tier} before"]) for tier in tiers}
    return {
        "n": len(index),
        "accuracy": {name: asdict(accuracy(hits, groups=groups)) for name, hits in right.items()},
        "gain": {tier: asdict(accuracy_difference(*both, groups=groups)) for tier, both in pairs.items()},
    }


def _right(
    denoiser: Denoiser, clf: HybridClassifier, questions: Questions, index: np.ndarray, progress: bool
) -> np.ndarray:
    """Tell for which images tier 2 alone finds the right label, bool `[m]`."""
    images, labels = questions.select(index)
    if questions.y is None:
        denoiser = without_template(denoiser)
    stage = Reranker(
        denoiser,
        allocation=FixedTrials(TRIALS),
        objective=clf.objective,
        batch_size=clf.batch_size,
        random_state=clf.random_state,
    )
    results = stage.rerank(images, labels, progress=progress)
    sums = [result.evidence.sum(axis=0) for result in results]
    return np.array([errors[0] < errors[1:].min() for errors in sums])
