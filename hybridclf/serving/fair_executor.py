"""Fair queueing: threads that clients share in turn, however much one of them sends."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

__all__ = ["FairExecutor"]

T = TypeVar("T")

PER_PIXEL = 2e-7
"""Seconds by which a pixel puts a job back: five for the 25 million of the largest images by default.

That is about as long as such an image may take to decode.
"""


class FairExecutor:
    """Threads that take a job of each client in turn, a client's smaller ones before its larger ones.

    A larger one waits for smaller ones that come up to `PER_PIXEL` seconds later for each pixel more, so that these
    cannot keep it waiting for ever.

    Parameters
    ----------
    n_threads : int
        Threads, at least 1.
    name : str
        Name of the threads.
    """

    def __init__(self, n_threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(n_threads, name)
        self._numbers = count()  # orders equally large jobs by arrival
        self._lock = Lock()  # guards the two tables
        self._waiting: OrderedDict[str, list[tuple[float, int, Callable[[], Any], Future[Any]]]] = OrderedDict()
        self._began: dict[int, float] = {}

    def submit(self, client: str, size: int, job: Callable[[], T]) -> Future[T]:
        """Queue a job for a client; one that is cancelled while it waits leaves the queue at once.

        Parameters
        ----------
        client : str
            Name of the client.
        size : int
            Pixels of the job's image.
        job : function
            Job to do.
        """
        future: Future[T] = Future()
        number = next(self._numbers)
        with self._lock:
            heappush(self._waiting.setdefault(client, []), (monotonic() + size * PER_PIXEL, number, job, future))
        future.add_done_callback(lambda done: self._drop(client, number) if done.cancelled() else None)
        self._threads.submit(self._run_next)
        return future

    @property
    def oldest_seconds(self) -> float:
        """Seconds that the job which was begun first has taken so far; 0 if none is under way."""
        with self._lock:
            return max((monotonic() - began for began in self._began.values()), default=0.0)

    def shutdown(self) -> None:
        """Take no more jobs, and wait for those taken."""
        self._threads.shutdown()

    def _run_next(self) -> None:
        """Do one job, if there still is one: there is a call for every job, cancelled ones included."""
        with self._lock:
            if not self._waiting:
                return
            client, jobs = self._waiting.popitem(last=False)
            _, number, job, future = heappop(jobs)
            if jobs:  # behind all other clients
                self._waiting[client] = jobs
            self._began[number] = monotonic()
        try:
            if future.set_running_or_notify_cancel():
                _resolve(future, job)
        finally:
            with self._lock:
                del self._began[number]

    def _drop(self, client: str, number: int) -> None:
        with self._lock:
            jobs = self._waiting.get(client, [])
            jobs[:] = [entry for entry in jobs if entry[1] != number]
            heapify(jobs)
            if not jobs:
                self._waiting.pop(client, None)


def _resolve(future: "Future[T]", job: Callable[[], T]) -> None:
    try:
        result = job()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
