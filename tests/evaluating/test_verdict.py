"""The verdict: one sentence that follows the interval."""

import numpy as np
import pytest

from hybridclf.evaluating.cost import Cost
from hybridclf.evaluating.scores import Difference
from hybridclf.evaluating.settings import Settings
from hybridclf.evaluating.verdict import verdict_of
from hybridclf.metrics import Interval, accuracy_difference

COST = Cost("hybrid", 10, 12.04, 80.0, 0.1)


def difference(value: float, low: float, high: float, fixed: int = 320, broken: int = 84) -> Difference:
    return Difference("hybrid", "tier 1", Interval(value, low, high), Interval(0.1, 0.05, 0.15), fixed, broken, 0.01)


def settings(pays: bool = True, own: bool = False) -> Settings:
    return Settings(5, 0.95, 4, "l2", own, pays, "clf.set_params(…)")


@pytest.mark.parametrize(
    ("found", "chosen", "pays", "said"),
    [
        (
            difference(0.0472, 0.0396, 0.055),
            settings(),
            True,
            "Re-ranking adds 4.7 points (4.0 to 5.5) for 12 times tier 1's time: stop at 95 %, compare 5 classes.",
        ),
        (
            difference(0.0472, 0.0396, 0.055),
            settings(own=True),
            True,
            "Re-ranking adds 4.7 points (4.0 to 5.5) for 12 times tier 1's time: leave it as it is (stop at 95 %, "
            "compare 5 classes).",
        ),
        (difference(0.02, 0.001, 0.04), settings(pays=False), True, "Re-ranking adds 2.0 points"),
        (
            difference(-0.031, -0.05, -0.012),
            settings(),
            False,
            "Re-ranking does harm here, -3.1 points (-5.0 to -1.2): use tier 1.",
        ),
        (
            difference(0.002, -0.004, 0.008),
            settings(),
            False,
            "It adds nothing here: use tier 1. Re-ranking makes +0.2 points (-0.4 to 0.8).",
        ),
        (difference(0.0, 0.0, 0.0, 0, 0), settings(pays=False), False, "It adds nothing here: use tier 1."),
        (
            difference(0.01, -0.02, 0.04, 60, 50),
            settings(),
            None,
            "1000 images cannot tell whether re-ranking adds anything: +1.0 points (-2.0 to 4.0) for 12 times tier 1's "
            "time; about 4,222 images would.",
        ),
        (
            difference(0.0, -0.02, 0.02, 50, 50),
            settings(pays=False),
            None,
            "1000 images cannot tell whether re-ranking adds anything: +0.0 points (-2.0 to 2.0) for 12 times tier 1's "
            "time; fixed and broken images cancel out so far; until then use tier 1.",
        ),
    ],
)
def test_the_verdict_follows_the_interval(found: Difference, chosen: Settings, pays: bool | None, said: str) -> None:
    verdict = verdict_of(found, COST, chosen, 1000)
    assert verdict.pays is pays
    assert str(verdict).startswith(said)


def test_few_images_without_a_change_tell_nothing() -> None:
    """If one image in fifty were fixed, three samples of 40 in seven would not show it."""

    def unchanged(n: int) -> Difference:
        gain = accuracy_difference(np.ones(n, dtype=bool), np.ones(n, dtype=bool))
        return difference(gain.value, gain.low, gain.high, 0, 0)

    few = verdict_of(unchanged(40), COST, settings(), 40)
    assert few.pays is None and "40 images cannot tell" in str(few)
    assert verdict_of(unchanged(400), COST, settings(), 400).pays is False
    off = verdict_of(unchanged(40), COST, settings(pays=False, own=True), 40)  # no image can be changed
    assert off.pays is False and str(off).startswith("It adds nothing here")
