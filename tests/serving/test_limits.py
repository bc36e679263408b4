"""Limits of a server that depend on each other."""

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.serving import Limits


@pytest.mark.parametrize(("decode", "stuck"), [(100, 1), (5, 20), (0.25, 1)])
def test_an_image_within_its_time_must_not_make_the_server_unready(decode: float, stuck: float) -> None:
    with pytest.raises(
        InvalidInputError,
        match=f"decode_seconds is {decode:g} and stuck_seconds {stuck:g}: .*--stuck-after. above {4 * decode:g}",
    ):
        Limits(decode_seconds=decode, stuck_seconds=stuck)
    assert Limits(decode_seconds=decode, stuck_seconds=4.01 * decode).decode_seconds == decode


@pytest.mark.parametrize(
    ("default", "most", "asked", "seconds"),
    [
        (None, None, None, None),
        (None, None, 3, 3),
        (2, None, None, 2),
        (2, None, 3, 3),
        (None, 1, None, 1),
        (None, 1, 3, 1),
        (0.5, 1, None, 0.5),
        (0.5, 1, 0.7, 0.7),
        (0.5, 1, 3, 1),
    ],
)
def test_a_request_has_the_time_it_asks_for_within_the_limits(
    default: float | None, most: float | None, asked: float | None, seconds: float | None
) -> None:
    assert Limits(deadline_seconds=default, max_deadline_seconds=most).deadline(asked) == seconds


def test_deadlines_that_cannot_be() -> None:
    with pytest.raises(InvalidInputError, match="deadline_seconds is 2 and max_deadline_seconds 1; give at most"):
        Limits(deadline_seconds=2, max_deadline_seconds=1)
    for name in ("deadline_seconds", "max_deadline_seconds"):
        with pytest.raises(InvalidInputError, match=f"{name} must be a finite number above 0"):
            Limits(**{name: 0})
