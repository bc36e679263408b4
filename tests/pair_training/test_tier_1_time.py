"""Share of the time for tier 1: its shortest training comes first, then tier 2's fewest steps."""

import pytest

from hybridclf.pair_training.tier_1_time import time_share


@pytest.mark.parametrize(
    ("fewest", "shortest", "planned", "longest"),
    [
        (2.0, 5.0, 36.0, 58.0),  # time for all: three fifths, and all but tier 2's fewest steps while it improves
        (40.0, 5.0, 20.0, 20.0),  # it leaves tier 2 these
        (40.0, 23.0, 23.0, 23.0),  # but keeps its own
        (10.0, 48.0, 48.0, 50.0),  # more than three fifths for those
        (40.0, 100.0, 54.0, 54.0),  # too short for both: all but a tenth
        (3.0, 100.0, 57.0, 57.0),  # or all but tier 2's fewest
    ],
)
def test_share_of_sixty_seconds(fewest: float, shortest: float, planned: float, longest: float) -> None:
    assert time_share(60.0, shortest, fewest) == pytest.approx((planned, longest))
