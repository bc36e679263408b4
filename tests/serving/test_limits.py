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
