"""Does tier 2 pay? Tier 1 alone against both tiers, on images that neither was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from .. import metrics
from ..metrics import Interval
from ..ports import Label

__all__ = ["Answers", "Worth", "harmed_classes"]

ALPHA = 0.05
"""Chance at which a class is taken for harmed that is not, over all classes together."""

MIN_Z = 1.0
"""Standard errors that the gain in log loss has to be above zero for tier 2 to be kept."""


class Answers(NamedTuple):
    """What tier 1 alone and both tiers said of m images.

    Attributes
    ----------
    leader : int array `[m]`
        Tier 1's first class.
    right : bool array `[2, m]`
        Whether tier 1 and whether both tiers are right.
    loss : float array `[2, m]`
        Log loss of both.
    evaluations : int array `[m]`
        What both cost.
    weight : float array `[m]`
        Weight of each image.
    """

    leader: np.ndarray
    right: np.ndarray
    loss: np.ndarray
    evaluations: np.ndarray
    weight: np.ndarray

    def without(self, classes: np.ndarray) -> "Answers":
        """The answers where tier 2 is not asked about images that tier 1 takes for one of these classes."""
        off = np.isin(self.leader, classes)
        right, loss = (np.stack([v[0], np.where(off, v[0], v[1])]) for v in (self.right, self.loss))
        return self._replace(right=right, loss=loss, evaluations=np.where(off, 0, self.evaluations))


@dataclass(frozen=True)
class Worth:
    """Tier 1 alone against both tiers on held-out images, with 95 % intervals.

    Attributes
    ----------
    n_images : int
        Images compared; neither tier was trained on them, and their fusion was fitted on others.
    tier_1_accuracy, hybrid_accuracy, accuracy_gain : Interval
        Share of right answers of tier 1 alone and of both tiers, and the paired difference.
    tier_1_log_loss, hybrid_log_loss, log_loss_gain : Interval
        Mean log loss of both in nats, and by how much that of both tiers is lower, paired.
    fixed, broken : int
        Images that tier 2 corrected, and images that it spoilt.
    evaluations : float
        Evaluations per image.
    pays : bool
        Whether tier 2 is used. It has to fix no fewer images than it breaks, and to gain log loss, by one standard
        error at least, or accuracy, with an interval above zero and log loss not worse by one standard error.
    harmed : tuple of labels
        Classes that it is not asked about, since it breaks significantly more of their images than it fixes.
    """

    n_images: int
    tier_1_accuracy: Interval
    hybrid_accuracy: Interval
    accuracy_gain: Interval
    tier_1_log_loss: Interval
    hybrid_log_loss: Interval
    log_loss_gain: Interval
    fixed: int
    broken: int
    evaluations: float
    pays: bool
    harmed: tuple[Label, ...] = ()

    @classmethod
    def of(cls, answers: Answers, harmed: Sequence[Label] = ()) -> "Worth":
        """Compare the answers to m images, m ≥ 1."""
        (before, after), (loss, new_loss), weight = answers.right, answers.loss, answers.weight
        gain = _mean(loss - new_loss, weight)
        fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
        share = weight / weight.sum()
        net = float(share @ (after.astype(float) - before))
        accuracy_gain = metrics.accuracy_difference(after, before)
        return cls(
            n_images=len(weight),
            tier_1_accuracy=metrics.accuracy(before),
            hybrid_accuracy=metrics.accuracy(after),
            accuracy_gain=accuracy_gain,
            tier_1_log_loss=_mean(loss, weight),
            hybrid_log_loss=_mean(new_loss, weight),
            log_loss_gain=gain,
            fixed=fixed,
            broken=broken,
            evaluations=float(answers.evaluations.mean()),
            pays=_pays(gain, accuracy_gain, net, fixed - broken),
            harmed=tuple(harmed),
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Worth":
        """The comparison that `dataclasses.asdict` was made of, also by way of JSON."""
        values = {name: Interval(**v) if isinstance(v, Mapping) else v for name, v in saved.items()}
        return cls(**values | {"harmed": tuple(saved["harmed"])})

    def __str__(self) -> str:
        gain = self.accuracy_gain
        figures = (
            f"tier 1 alone is right for {100 * self.tier_1_accuracy.value:.1f} % of {self.n_images} held-out images, "
            f"both tiers for {100 * self.hybrid_accuracy.value:.1f} % ({100 * gain.value:+.1f} points, "
            f"{100 * gain.low:.1f} to {100 * gain.high:.1f}; {self.fixed} fixed, {self.broken} broken; log loss "
            f"{self.tier_1_log_loss.value:.3f} to {self.hybrid_log_loss.value:.3f}) at {self.evaluations:.1f} "
            "evaluations each"
        )
        if not self.pays:
            return f"Re-ranking does not pay here and is off, use tier 1: {figures}."
        off = f" It is off for {', '.join(map(str, self.harmed))}, which it would harm." if self.harmed else ""
        return f"Re-ranking pays: {figures}.{off}"


def harmed_classes(answers: Answers) -> np.ndarray:
    """Numbers of the classes whose images tier 2 breaks significantly more often than it fixes them.

    Classes go by tier 1's first choice, the only one that is known when an image comes. One-sided exact sign tests,
    Bonferroni-corrected.
    """
    (before, after), leaders = answers.right, np.unique(answers.leader)
    harmed = []
    for c in leaders:
        mine = answers.leader == c
        fixed, broken = int((after & ~before)[mine].sum()), int((before & ~after)[mine].sum())
        if broken > fixed and binomtest(broken, fixed + broken, alternative="greater").pvalue < ALPHA / len(leaders):
            harmed.append(c)
    return np.array(harmed, dtype=int)


def _pays(log_loss_gain: Interval, accuracy_gain: Interval, net: float, n_fixed_more: int) -> bool:
    """Decide whether tier 2 is used; `net` is the weighted gain in accuracy."""
    error = (log_loss_gain.high - log_loss_gain.low) / (2 * 1.96)
    gains_log_loss = log_loss_gain.value > MIN_Z * error
    gains_accuracy = accuracy_gain.low > 0 and log_loss_gain.value > -MIN_Z * error
    return bool(net >= 0 and n_fixed_more >= 0 and (gains_log_loss or gains_accuracy))


def _mean(values: np.ndarray, weight: np.ndarray) -> Interval:
    """Weighted mean of m values with its normal 95 % interval."""
    share = weight / weight.sum()
    mean = float(share @ values)
    error = float(np.sqrt((share**2) @ (values - mean) ** 2))
    return Interval(mean, mean - 1.96 * error, mean + 1.96 * error)
