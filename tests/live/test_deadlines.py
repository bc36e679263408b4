"""Alarms ring once, in time, in order, and not after they were cancelled."""

import threading
from queue import SimpleQueue
from time import monotonic

import numpy as np
import pytest

from hybridclf.live.deadlines import Deadlines


def test_alarms_ring_in_order_and_never_early() -> None:
    rung: SimpleQueue[tuple[int, float]] = SimpleQueue()
    alarms = Deadlines(lambda number: rung.put((number, monotonic())))
    now = monotonic()
    after = np.random.default_rng(0).permutation(30) / 100
    for number, seconds in enumerate(after):
        alarms.set(number, now + seconds)
    heard = [rung.get(timeout=10) for _ in after]
    alarms.close()
    assert [number for number, _ in heard] == np.argsort(after).tolist()
    assert all(when >= now + after[number] for number, when in heard)
    assert rung.empty()


def test_an_earlier_alarm_overtakes_and_a_cancelled_one_is_silent() -> None:
    rung: SimpleQueue[int] = SimpleQueue()
    alarms = Deadlines(rung.put)
    alarms.set(1, monotonic() + 1e9)
    alarms.set(2, monotonic() + 0.2)
    alarms.set(3, monotonic() - 1)
    assert rung.get(timeout=10) == 3
    alarms.cancel(2)
    alarms.cancel(77)
    alarms.set(4, monotonic() + 0.3)
    assert rung.get(timeout=10) == 4
    alarms.close()
    assert rung.empty()


def test_cancelled_alarms_take_no_room() -> None:
    alarms = Deadlines(lambda number: None)
    for number in range(10_000):
        alarms.set(number, monotonic() + 1e6)
        alarms.cancel(number)
    assert len(alarms._heap) < 100
    alarms.close()


@pytest.mark.parametrize("from_alarm", [True, False])
def test_close_ends_the_thread(from_alarm: bool) -> None:
    ready = threading.Event()

    def ring(number: int) -> None:
        alarms.close()
        ready.set()

    alarms = Deadlines(ring)
    if from_alarm:
        alarms.set(0, monotonic())
        assert ready.wait(10)
    else:
        alarms.close()
    alarms.thread.join(10)
    assert not alarms.thread.is_alive()
