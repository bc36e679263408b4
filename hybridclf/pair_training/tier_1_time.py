"""Share of a training's time for a tier 1 that can be cut short."""

from typing import NamedTuple

from .recipe import PROPOSER_SHARE

__all__ = ["KEPT", "MIN_PASSES", "Share", "most_time", "time_share"]

MIN_PASSES = 4
"""Fewest passes over the images that are worth a new network's time.

On 45,000 images of CIFAR-10 it was right for 75 % after four passes, in three minutes, and for 66 % after one minute.
A pretrained network has gained by as many, and by one or two it has not.
"""

KEPT = 0.1
"""Share of both tiers' time that tier 2 keeps at most where tier 1's shortest worthwhile training takes all."""


class Share(NamedTuple):
    """Tier 1's share of a training's time, in seconds.

    Attributes
    ----------
    planned : float
        Time after which its training ends, unless its held-out loss still falls; a new network's ends once it settles.
    longest : float
        Most time, while its held-out loss falls.
    """

    planned: float
    longest: float


def time_share(both: float, shortest: float, fewest: float) -> Share:
    """Share of the time for a tier 1 that can be cut short.

    More than the usual one is planned only if its shortest training is. Beyond that it leaves tier 2 its fewest steps.
    """
    share = max(PROPOSER_SHARE * both, min(shortest, most_time(both, fewest)))
    planned = max(min(share, both - fewest), min(share, shortest))
    return Share(planned, max(planned, both - fewest))


def most_time(both: float, fewest: float) -> float:
    """Most seconds that a tier 1 may take."""
    return both - min(fewest, KEPT * both)
