"""Measured result of a training: accuracies with intervals, classes, confusions, and what to do."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..estimator import HybridClassifier
from ..fitting.worth import FEWEST
from ..metrics import accuracy
from ..proposer import aligned_log_proba
from ..reranking.allocation import FixedTrials
from ..reranking.fusion import Fusion
from .time_budget import HeldOutUse
from .training_data import TrainingData

__all__ = ["TIERS", "advice", "cut_short", "guessing", "measure"]

TIERS = ("tier_1", "tier_2", "hybrid")
"""Answers that are compared: of each tier alone, and of both."""

CONFUSIONS = 10
"""Most confusions listed."""


def measure(clf: HybridClassifier, data: TrainingData, usage: HeldOutUse) -> dict[str, Any]:
    """Measure each tier alone and both on held-out images that the fusion was not fitted on.

    Returns
    -------
    dict
        Plain JSON: "n", the number of images; "held_out", how the held-out images were used; and unless there are none,
        the accuracy of each of `TIERS`, "intervals" of them (95 %), "classes", "confusions" and the cost.
    """
    images, labels = data.some_held_out(data.measure_on)
    groups = data.held_out_groups[data.measure_on]
    n_all = len(data.held_out_photos)
    used = {"trained_on": len(data.photos), "all": n_all, "fusion": usage.n_fusion, "measured": len(labels)}
    used |= {"classes": len(data.classes), "measured_classes": len(np.unique(labels))}
    if not len(labels):  # few held-out images, all needed for the fusion
        return {"n": 0, "held_out": used}
    # tier 2 alone: all classes, no prior
    candidates, stage = [clf.classes_.tolist()] * len(labels), clf.reranker(FixedTrials(usage.trials), Fusion())
    alone = stage.rerank(images, candidates, progress=clf.verbose)
    posterior, results = clf.decide(images)
    answers = {
        "tier_1": clf.classes_[aligned_log_proba(clf.proposer_, images, clf.classes_).argmax(axis=1)],
        "tier_2": np.array([result.ranking[0] for result in alone]),
        "hybrid": clf.classes_[posterior.argmax(axis=1)],
    }
    right = {name: answer == labels for name, answer in answers.items()}
    return {
        "n": len(labels),
        **{name: float(hits.mean()) for name, hits in right.items()},
        "intervals": {name: asdict(accuracy(hits, groups=groups)) for name, hits in right.items()},
        "evaluations": float(np.mean([result.evaluations for result in results])),
        "tier_2_trials": usage.trials,
        "held_out": used,
        "classes": _by_class(right, labels, groups),
        "confusions": _confusions(answers["hybrid"], labels),
    }


def _by_class(right: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Accuracies and the hybrid's interval by class."""
    found = {}
    for label in np.unique(labels).tolist():
        of = labels == label
        shares = {name: float(hits[of].mean()) for name, hits in right.items()}
        interval = accuracy(right["hybrid"][of], groups=groups[of])
        found[str(label)] = {"n": int(of.sum()), **shares, "interval": asdict(interval)}
    return found


def _confusions(answers: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Most frequent wrong answers, as class, answer and number."""
    wrong = answers != labels
    counts = Counter(zip(labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
    return [{"class": str(y), "answer": str(said), "n": n} for (y, said), n in counts.most_common(CONFUSIONS)]


def guessing(found: dict[str, Any], data: TrainingData) -> str:
    """Sentence on a tier 1 that is not known to be better than one frequent answer; "" if it is.

    Parameters
    ----------
    found : dict
        Result of `measure`.
    data : TrainingData
        Images, whose most frequent class in training is that answer.
    """
    if not found["n"]:
        return ""
    label = data.classes[int(torch.bincount(data.y).argmax())]
    share = accuracy(data.some_held_out(data.measure_on)[1] == label, groups=data.held_out_groups[data.measure_on])
    if found["intervals"]["tier_1"]["low"] > share.value:
        return ""
    return (
        f"Tier 1 is not known to be better than always answering {label}, which is right for {share.percent()} of "
        f"the {found['n']} images measured: train longer (--minutes), give more images, or check their labels."
    )


def cut_short(log: Mapping[str, Any]) -> str:
    """Sentence on trainings that were cut short to keep to the time; "" if none lost a tenth of its steps.

    Parameters
    ----------
    log : mapping
        Log of the training.
    """
    done, names = log["n_steps"], {"proposer": "tier 1", "denoiser": "tier 2"}
    short = [
        f"{names.get(name, name)} had {done[name]} of {planned} steps"
        for name, planned in log.get("late", {}).items()
        if done[name] < 0.9 * planned
    ]
    return f"Steps took longer than planned: {' and '.join(short)}." if short else ""


def advice(clf: HybridClassifier, too_short: str) -> str:
    """Say what to do about tier 2; "" if nothing.

    Parameters
    ----------
    clf : HybridClassifier
        The trained pair.
    too_short : str
        Sentence on a time that was too short, or "".
    """
    short = f"There were {too_short}." if too_short else ""
    if clf.worth_ is None or clf.fusion_.pays:
        return short
    if not clf.worth_.is_enough:
        n, n_groups = clf.worth_.n_images, clf.worth_.n_groups
        of = "" if n_groups in (n, None) else f" of {n_groups} groups"
        return (
            f"Tier 2 is off: {n} held-out images{of} do not tell whether it adds anything. Give more "
            f"images, or a larger --val, so that there are {FEWEST}; or fit the fusion to other labelled images: "
            "hybridclf calibrate DATA OUT --model DIR."
        )
    off = "Tier 2 adds nothing here: it is off, and the answers are tier 1's, at tier 1's cost."
    more = "To change that, train longer (--minutes), give more images, or a larger --image-size."
    return f"{off} {short or more}"
