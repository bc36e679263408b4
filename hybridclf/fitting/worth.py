"""Comparison of tier 1 alone with both tiers, on images that neither was trained on: does tier 2 pay?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest, t

from .. import metrics
from ..metrics import Interval
from ..ports import Label

__all__ = ["FEWEST", "FEWEST_UNUSUAL", "Answers", "Worth", "harmed_classes"]

FEWEST = 20
"""Images without which tier 2 is off: turned on by one of five, its calibration error was 0.35 for tier 1's 0.14."""

FEWEST_UNUSUAL = 50
"""Corrupted copies that look unusual without which tier 2 is not on for such images alone.

Turned on by 32 it was worth 4.5 points (2.4 to 6.9) of corrupted photographs, but broke 51 and fixed 18 of 1,000
cartoons and sketches; by 35, it broke 31 and fixed 14 of 500 corrupted digits in other colours.
"""

ALPHA = 0.05
"""Probability that any class is wrongly taken for harmed, over all classes together."""

MIN_Z, WITHIN = 1.64, 1.0
"""Standard errors that the gain in log loss has to be above zero for tier 2 to be kept, a one-sided test at 5 %, and
that it may be below where accuracy gains.

A single one was not enough: a gain of 1.2 on 54 images cost 4 points of 500 others.
"""


class Answers(NamedTuple):
    """Answers of tier 1 alone and of both tiers for m images.

    Attributes
    ----------
    leader : int array `[m]`
        Tier 1's first class.
    right : bool array `[2, m]`
        True where tier 1, and where both tiers are right.
    loss : float array `[2, m]`
        Log loss of both.
    evaluations : float array `[m]`
        Cost of both tiers' answer.
    weight : float array `[m]`
        Weight of each image.
    unit : int array `[m]`
        Number of the group that each image belongs to, from 0 on.
    """

    leader: np.ndarray
    right: np.ndarray
    loss: np.ndarray
    evaluations: np.ndarray
    weight: np.ndarray
    unit: np.ndarray

    def without(self, classes: np.ndarray) -> "Answers":
        """The answers where tier 2 is not asked about images that tier 1 takes for one of these classes."""
        off = np.isin(self.leader, classes)
        right, loss = (np.stack([v[0], np.where(off, v[0], v[1])]) for v in (self.right, self.loss))
        return self._replace(right=right, loss=loss, evaluations=np.where(off, 0, self.evaluations))

    def select(self, images: np.ndarray) -> "Answers":
        """The answers to some of the images, bool `[m]`."""
        return Answers(*(values[..., images] for values in self))


@dataclass(frozen=True)
class Worth:
    """Tier 1 alone against both tiers on held-out images, with 95 % intervals.

    Intervals allow for groups of images that belong together.

    Attributes
    ----------
    n_images : int
        Images compared; neither tier was trained on them, and their fusion was fitted on others.
    tier_1_accuracy, hybrid_accuracy, accuracy_gain : Interval
        Share of right answers, by weight, of tier 1 alone and of both tiers, and the paired difference.
    tier_1_log_loss, hybrid_log_loss, log_loss_gain : Interval
        Mean log loss of each in nats, and the paired gain: positive where both tiers lose less.
    fixed, broken : int
        Images that tier 2 corrected, and images that it spoilt.
    evaluations : float
        Evaluations per image.
    pays : bool
        True if tier 2 is used. There have to be `FEWEST` images, or groups of such, and it has to fix at least as many
        as it breaks. It also has to gain log loss by at least 1.64 standard errors, or accuracy with an interval above
        zero at a log loss within one standard error.
    harmed : tuple of labels
        Classes that it is not asked about: it breaks significantly more of their images than it fixes.
    unusual : Worth or None
        Where it does not pay: the same for corrupted copies that look unlike the images, in 16 trials at most. Tier 1
        alone has the prior that is flattened for them.
    n_groups : int or None
        Groups of the images, each of which counts as one; None in models of earlier versions.
    weighted : bool
        True if images have different weights.
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
    unusual: "Worth | None" = None
    n_groups: int | None = None
    weighted: bool = False

    @property
    def is_enough(self) -> bool:
        """True if there are images, or groups of such, enough to tell whether it pays."""
        return (self.n_images if self.n_groups is None else self.n_groups) >= FEWEST

    @property
    def unusual_alone(self) -> bool:
        """True if tier 2 is asked about images that look unusual alone."""
        return not self.pays and self.unusual is not None and self.unusual.pays

    @classmethod
    def of(cls, answers: Answers, harmed: Sequence[Label] = ()) -> "Worth":
        """Compare the answers to m images, m ≥ 1."""
        (before, after), (loss, new_loss), weight = answers.right, answers.loss, answers.weight
        unit, n_groups = answers.unit, len(np.unique(answers.unit))
        gain = metrics.mean_interval(loss - new_loss, weight, unit)
        fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
        accuracy_gain = metrics.accuracy_difference(after, before, groups=unit, weight=weight)
        return cls(
            n_images=len(weight),
            tier_1_accuracy=metrics.accuracy(before, groups=unit, weight=weight),
            hybrid_accuracy=metrics.accuracy(after, groups=unit, weight=weight),
            accuracy_gain=accuracy_gain,
            tier_1_log_loss=_finite(metrics.mean_interval(loss, weight, unit)),
            hybrid_log_loss=_finite(metrics.mean_interval(new_loss, weight, unit)),
            log_loss_gain=_finite(gain),
            fixed=fixed,
            broken=broken,
            evaluations=float(answers.evaluations.mean()),
            pays=n_groups >= FEWEST and _pays(gain, accuracy_gain, fixed - broken, n_groups),
            harmed=tuple(harmed),
            n_groups=n_groups,
            weighted=bool(np.ptp(weight)),
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Worth":
        """The comparison that `dataclasses.asdict` was made of, also by way of JSON."""
        values = {**saved, "harmed": tuple(saved["harmed"])}
        unusual = values.pop("unusual", None)
        values = {name: Interval(**v) if isinstance(v, Mapping) else v for name, v in values.items()}
        return cls(**values, unusual=None if unusual is None else cls.from_dict(unusual))

    def __str__(self) -> str:
        figures = self._figures("held-out images")
        if self.unusual_alone and self.unusual is not None:
            return (
                "Re-ranking pays for images that look unusual (noisy, blurred, pale, bright or dark), and is on for "
                f"these alone: {self.unusual._figures('corrupted copies')}. On others it does not: {figures}."
            )
        if not self.pays:
            of = "" if self.n_groups in (self.n_images, None) else " of different groups"
            few = f"is not known to pay, which takes {FEWEST} held-out images{of},"
            why = "does not pay here" if self.is_enough else few
            return f"Re-ranking {why} and is off, use tier 1: {figures}."
        off = f" It is off for {', '.join(map(str, self.harmed))}, which it would harm." if self.harmed else ""
        # of log loss, held-out images tell sooner
        unknown = "a one-sided test at 5 %; whether by accuracy, these images cannot tell"
        by = "" if self.accuracy_gain.low > 0 else f" by log loss ({unknown})"
        return f"Re-ranking pays{by}: {figures}.{off}"

    def _figures(self, images: str) -> str:
        gain, by = self.log_loss_gain, " by weight" if self.weighted else ""
        # of a single group there is no interval, its ends are the largest numbers
        change = "" if gain.high - gain.low > 1e6 else f" ({-gain.value:+.3f}, {-gain.high:.3f} to {-gain.low:.3f})"
        return (
            f"tier 1 alone is right for {self.tier_1_accuracy.percent()} of {self.n_images} {images}{by}, both tiers "
            f"for {self.hybrid_accuracy.percent()}: {self.accuracy_gain.points()}, {self.fixed} fixed, {self.broken} "
            f"broken, log loss from {self.tier_1_log_loss.value:.3f} to {self.hybrid_log_loss.value:.3f}{change}, at "
            f"{self.evaluations:.1f} evaluations each"
        )


def harmed_classes(answers: Answers) -> np.ndarray:
    """Numbers of the classes that tier 2 harms: it breaks significantly more of their images than it fixes.

    An image belongs to tier 1's first class, since its right class is unknown when it comes. One-sided exact sign
    tests, Bonferroni-corrected; images of one group have one vote.
    """
    (before, after), leaders = answers.right, np.unique(answers.leader)
    harmed = []
    for c in leaders:
        mine = answers.leader == c
        # images that both tiers get right, or wrong, say nothing about a difference
        net = np.bincount(answers.unit[mine], after[mine].astype(float) - before[mine])
        fixed, broken = int((net > 0).sum()), int((net < 0).sum())
        if broken > fixed and binomtest(broken, fixed + broken, alternative="greater").pvalue < ALPHA / len(leaders):
            harmed.append(c)
    return np.array(harmed, dtype=int)


def _finite(interval: Interval) -> Interval:
    """The interval with finite ends, as JSON has no others; that of a single group has none."""
    most = float(np.finfo(float).max)
    return Interval(interval.value, max(interval.low, -most), min(interval.high, most))


def _pays(log_loss_gain: Interval, accuracy_gain: Interval, n_fixed_more: int, n_groups: int) -> bool:
    """Decide whether tier 2 is used."""
    # the standard error, from the width of Student's 95 % interval
    error = (log_loss_gain.high - log_loss_gain.low) / (2 * float(t.ppf(0.975, n_groups - 1)))
    gains_log_loss = log_loss_gain.value > MIN_Z * error
    gains_accuracy = accuracy_gain.low > 0 and log_loss_gain.value > -WITHIN * error
    return bool(accuracy_gain.value >= 0 and n_fixed_more >= 0 and (gains_log_loss or gains_accuracy))
