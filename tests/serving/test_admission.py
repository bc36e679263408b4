"""Places for images: how many there are, and how many one client may hold."""

import pytest

from hybridclf.serving.admission import Admission
from hybridclf.serving.errors import Refusal


def test_one_client_cannot_take_the_last_places() -> None:
    gate = Admission(32)
    with gate.places("many", 30):
        with pytest.raises(Refusal, match="the queue is full"):
            gate.check("many")
        with gate.places("few", 2):
            assert gate.inside == 32
            with pytest.raises(Refusal, match="the queue is full"):
                gate.check("third")
    assert gate.inside == 0
    gate.check("many", 30)
    with pytest.raises(Refusal, match="got 31 images; at most 30 are taken at a time"):
        gate.check("many", 31)


def test_a_small_queue_is_all_of_its_only_client_s() -> None:
    Admission(10).check("one", 10)


def test_while_draining_nobody_comes_in() -> None:
    gate = Admission(10)
    gate.draining = True
    with pytest.raises(Refusal, match="shutting down"):
        gate.check("one")
