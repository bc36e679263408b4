"""Fair queueing: turns by client, small before large, and jobs that leave the queue when they are cancelled."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from gc import collect
from time import sleep
from weakref import ref

import pytest

from hybridclf.serving import fair_executor
from hybridclf.serving.fair_executor import PER_PIXEL, FairExecutor

PATIENCE = 30.0


class Held:
    """An executor whose one thread waits until it is let go; what it does then is noted."""

    def __init__(self) -> None:
        self.executor = FairExecutor(1, "test")
        self.gate, self.begun, self.done = threading.Event(), threading.Event(), []  # type: ignore[var-annotated]
        self.executor.submit("first", 0, self._hold)
        assert self.begun.wait(PATIENCE)

    def _hold(self) -> None:
        self.begun.set()
        assert self.gate.wait(PATIENCE)

    def submit(self, client: str, size: int = 1) -> "Future[None]":
        return self.executor.submit(client, size, lambda: self.done.append((client, size)))

    def let_go(self) -> list[tuple[str, int]]:
        self.gate.set()
        self.executor.shutdown()
        return self.done


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go()


def test_clients_take_turns_whatever_one_of_them_sends(held: Held) -> None:
    for client in ("a", "a", "a", "a", "b", "c", "b"):
        held.submit(client)
    assert [client for client, _ in held.let_go()] == ["a", "b", "c", "a", "b", "a", "a"]


def test_small_before_large_within_a_client_and_by_arrival_among_equals(held: Held) -> None:
    small, large, more = 10**6, 10**9, 2 * 10**9  # further apart in pixels than any two calls here in time
    for size in (more, small, large, small):
        held.submit("a", size)
    held.submit("b", 10 * more)
    assert held.let_go() == [("a", small), ("b", 10 * more), ("a", small), ("a", large), ("a", more)]


def test_small_jobs_cannot_keep_a_large_one_waiting_for_ever(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    large, times = 10**7, [0.0]
    monkeypatch.setattr(fair_executor, "monotonic", lambda: times[-1])
    held.submit("a", large)
    for share in (0.0, 0.9, 1.1):
        times.append(share * large * PER_PIXEL)
        held.submit("a", 1)
    assert held.let_go() == [("a", 1), ("a", 1), ("a", large), ("a", 1)]


def test_a_cancelled_job_leaves_the_queue_at_once(held: Held) -> None:
    """It is free, with the image it holds."""
    futures, jobs = [], []
    for size in range(4):
        job = partial(held.done.append, ("a", size))
        jobs.append(ref(job))
        futures.append(held.executor.submit("a", size, job))
        del job
    assert all(future.cancel() for future in futures[:3])
    collect()
    assert [job() is None for job in jobs] == [True, True, True, False]
    assert futures[3].cancel()
    collect()
    assert jobs[3]() is None
    held.submit("b")
    assert held.let_go() == [("b", 1)]
    with pytest.raises(CancelledError):
        futures[0].result()


def test_errors_and_results_reach_the_future(held: Held) -> None:
    failing = held.executor.submit("a", 1, lambda: 1 / 0)
    ending = held.executor.submit("a", 2, lambda: exec("raise SystemExit(1)"))
    fine = held.executor.submit("a", 3, lambda: 42)
    held.let_go()
    assert isinstance(failing.exception(PATIENCE), ZeroDivisionError)
    assert isinstance(ending.exception(PATIENCE), SystemExit)
    assert fine.result(PATIENCE) == 42


def test_the_age_of_the_oldest_job_is_told(held: Held) -> None:
    before = held.executor.oldest_seconds
    sleep(0.05)
    assert held.executor.oldest_seconds >= before + 0.05
    held.let_go()
    assert held.executor.oldest_seconds == 0
