"""Share of a training's time for a tier 1 that can be cut short."""

from .recipe import PROPOSER_SHARE

__all__ = ["KEPT", "MIN_PASSES", "most_time", "time_share"]

MIN_PASSES = 4
"""Fewest passes over the images that are worth a new network's time.

On 45,000 images of CIFAR-10 it was right for 75 % after four passes, in three minutes, and for 66 % after one minute.
A pretrained network has gained by as many, and by one or two it has not.
"""

KEPT = 0.1
"""Share of both tiers' time that tier 2 keeps at most where tier 1's shortest worthwhile training takes all."""


def time_share(both: float, shortest: float, fewest: float) -> float:
    """Share of the time for a tier 1 that can be cut short: more than the usual one only if its shortest training is.

    Within the usual share it leaves tier 2 its fewest steps.
    """
    share = max(PROPOSER_SHARE * both, min(shortest, most_time(both, fewest)))
    return max(min(share, both - fewest), min(share, shortest))


def most_time(both: float, fewest: float) -> float:
    """Most seconds that a tier 1 may take."""
    return both - min(fewest, KEPT * both)
