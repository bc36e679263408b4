"""Scores of one method, paired differences of two, and the classes that gain and lose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import recall_score, top_k_accuracy_score

from .. import metrics
from ..metrics import Bins, Interval
from ..ports import Label
from .methods import Answers

__all__ = ["ClassChange", "Difference", "Score", "by_class", "compare", "score"]

N_BINS = 15
"""Bins of a reliability diagram; fewer where there are fewer than `PER_BIN` images for each."""

PER_BIN = 20

SMALLEST = 1e-12
"""Probability that a log loss takes a smaller one for."""


@dataclass(frozen=True)
class Score:
    """One method on n images.

    Attributes
    ----------
    method : str
        Its name.
    accuracy : Interval
        Share of right answers with its 95 % Wilson interval.
    mean_per_class : float
        Mean over the classes of the share of their images that are answered right.
    top_5 : float or None
        Share of images whose right class is among the five likeliest; None for fewer than six classes.
    log_loss, brier : float
        Mean of -log p(right class), in nats, and of Σ_c (p_c - [c is right])², in [0, 2].
    calibration_error : float
        Expected calibration error over 15 bins of equal width.
    reliability : Bins
        Confidence against accuracy in bins of equally many images.
    evaluations, rows : float
        Denoiser predictions and trials per image.
    no_evaluation : float
        Share of images that needed no evaluation.
    """

    method: str
    accuracy: Interval
    mean_per_class: float
    top_5: float | None
    log_loss: float
    brier: float
    calibration_error: float
    reliability: Bins
    evaluations: float
    rows: float
    no_evaluation: float


@dataclass(frozen=True)
class Difference:
    """Two methods on the same images.

    Attributes
    ----------
    method, baseline : str
        Names.
    accuracy : Interval
        The method's accuracy minus the baseline's, with its paired 95 % interval.
    log_loss : Interval
        By how much its log loss is lower, with its paired 95 % interval.
    fixed, broken : int
        Images that it alone gets right, and images that the baseline alone gets right.
    p : float
        Of McNemar's exact test: the chance of so uneven a split of these, were both methods equally good. Images of one
        group have one vote.
    """

    method: str
    baseline: str
    accuracy: Interval
    log_loss: Interval
    fixed: int
    broken: int
    p: float


@dataclass(frozen=True)
class ClassChange:
    """Change that re-ranking makes to the images of one class.

    Attributes
    ----------
    label : label
        The class.
    n : int
        Its images.
    before, after : float
        Shares of them that tier 1, and the hybrid, answer right.
    gain : Interval
        The difference, with its paired 95 % interval.
    fixed, broken : int
        Images that only the hybrid, and only tier 1, gets right.
    """

    label: Label
    n: int
    before: float
    after: float
    gain: Interval
    fixed: int
    broken: int


def score(method: str, answers: Answers, y: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Scores of a method's answers to n images of these classes `[n]`, and group numbers `[n]`."""
    p, right, n_classes = answers.posterior, answers.label == y, answers.posterior.shape[1]
    of_right = p[np.arange(len(y)), y]
    return Score(
        method=method,
        accuracy=metrics.accuracy(right, groups=groups),
        mean_per_class=float(recall_score(y, answers.label, labels=np.unique(y), average="macro", zero_division=0)),
        top_5=float(top_k_accuracy_score(y, p, k=5, labels=np.arange(n_classes))) if n_classes > 5 else None,
        log_loss=float(losses(answers, y).mean()),
        brier=float((np.square(p).sum(axis=1) - 2 * of_right + 1).mean()),  # Σ (p_c - [c = y])², multiplied out
        calibration_error=metrics.expected_calibration_error(p.max(axis=1), right),
        reliability=metrics.equal_count_bins(p.max(axis=1), right, max(1, min(N_BINS, len(y) // PER_BIN))),
        evaluations=float(answers.evaluations.mean()),
        rows=float(answers.rows.mean()),
        no_evaluation=float((answers.evaluations == 0).mean()),
    )


def losses(answers: Answers, y: np.ndarray) -> np.ndarray:
    """Log loss of each image, `[n]`."""
    return -np.log(np.maximum(answers.posterior[np.arange(len(y)), y], SMALLEST))


def compare(
    names: tuple[str, str], answers: Answers, baseline: Answers, y: np.ndarray, groups: np.ndarray | None = None
) -> Difference:
    """The paired difference of two methods of these names; classes and groups as for `score`."""
    right, before = answers.label == y, baseline.label == y
    return Difference(
        *names,
        accuracy=metrics.accuracy_difference(right, before, groups=groups),
        log_loss=metrics.mean_interval(losses(baseline, y) - losses(answers, y), groups=groups),
        fixed=int((right & ~before).sum()),
        broken=int((before & ~right).sum()),
        p=_sign_test(right, before, groups),
    )


def _sign_test(right: np.ndarray, before: np.ndarray, groups: np.ndarray | None) -> float:
    """P-value of McNemar's exact test; images of one group have one vote."""
    net = np.bincount(np.arange(len(right)) if groups is None else groups, right.astype(float) - before)
    better, worse = int((net > 0).sum()), int((net < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def by_class(
    answers: Answers, baseline: Answers, y: np.ndarray, classes: Sequence[Label], groups: np.ndarray | None = None
) -> list[ClassChange]:
    """Changes by class, the greatest gain first; classes without an image are left out. Groups as for `score`."""
    right, before = answers.label == y, baseline.label == y
    changes = []
    for c in np.unique(y):
        new, old = right[y == c], before[y == c]
        gain = metrics.accuracy_difference(new, old, groups=None if groups is None else groups[y == c])
        fixed, broken = int((new & ~old).sum()), int((old & ~new).sum())
        changes.append(ClassChange(classes[c], len(new), float(old.mean()), float(new.mean()), gain, fixed, broken))
    return sorted(changes, key=lambda change: -change.gain.value)
