"""Verdict on whether re-ranking pays: one sentence, from the test images alone."""

from dataclasses import dataclass
from math import ceil

from .cost import Cost
from .scores import Difference
from .settings import Settings
from .wording import ratio

__all__ = ["Verdict", "verdict_of"]

POINT = 0.01
"""A gain that is not above this can be taken for nothing, if its interval has zero in it."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on re-ranking.

    Attributes
    ----------
    sentence : str
        In words.
    pays : bool or None
        Whether re-ranking makes more images right than it breaks; None: too few images to tell.
    difference : Difference
        The recommended settings against tier 1, which it rests on.
    """

    sentence: str
    pays: bool | None
    difference: Difference

    def __str__(self) -> str:
        return self.sentence


def verdict_of(difference: Difference, cost: Cost, settings: Settings, n_images: int) -> Verdict:
    """The verdict on the recommended settings.

    Parameters
    ----------
    difference : Difference
        Theirs against tier 1, on the test images.
    cost : Cost
        Theirs.
    settings : Settings
        What is recommended.
    n_images : int
        Test images.
    """
    gain = difference.accuracy
    change = gain.points()
    price = f"for {ratio(cost.time)} times tier 1's time"
    if gain.low > 0:
        sentence = f"Re-ranking adds {change[1:]} {price}: {_advice(settings)}."
        return Verdict(sentence, True, difference)
    if gain.high < 0:
        return Verdict(f"Re-ranking does harm here, {change}: use tier 1.", False, difference)
    off = settings.own and not settings.pays and not difference.fixed and not difference.broken
    if off or gain.high <= POINT:
        return Verdict(f"It adds nothing here: use tier 1. Re-ranking makes {change}.", False, difference)
    unknown = f"{n_images} images cannot tell whether re-ranking adds anything"
    advice = "" if settings.pays else "; until then use tier 1"
    return Verdict(f"{unknown}: {change} {price}; {_more(difference, n_images)}{advice}.", None, difference)


def _advice(settings: Settings) -> str:
    """Settings in words."""
    stop = "" if settings.confidence is None else f"stop at {100 * settings.confidence:g} %, "
    among = "as it is" if settings.top_k is None else f"compare {settings.top_k} classes"
    return f"{stop}{among}" if not settings.own else f"leave it as it is ({stop}{among})"


def _more(difference: Difference, n_images: int) -> str:
    """Number of images that would tell such a gain from zero, if the share of changed answers stays."""
    gain, changed = abs(difference.accuracy.value), (difference.fixed + difference.broken) / n_images
    if not changed:
        return "no answer is another one so far"
    if gain * n_images < 1:
        return "fixed and broken images cancel out so far"
    needed = ceil((1.96 / gain) ** 2 * (changed - gain**2))  # the variance of a difference of -1, 0 or 1
    return f"about {max(needed, n_images + 1):,} images would"
