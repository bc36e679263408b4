"""A thread that keeps deadlines, whatever the other threads are busy with."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from threading import Condition, Lock, Thread, current_thread
from time import monotonic

__all__ = ["Deadlines"]

LONGEST_WAIT = 3600.0
"""Seconds; longer waits are cut in pieces, as the operating system bounds them."""


class Deadlines:
    """Calls `ring(number)` on a thread of its own when the time that was set for a number has come.

    Parameters
    ----------
    ring : function
        What is called; it must be quick, for the next alarm waits for it.
    """

    def __init__(self, ring: Callable[[int], None]) -> None:
        self._ring = ring
        self._changed = Condition(Lock())
        self._heap: list[tuple[float, int]] = []
        self._set: dict[int, float] = {}
        self._closed = False
        self.thread = Thread(target=self._run, name="hybridclf-alarms", daemon=True)
        self.thread.start()

    def set(self, number: int, when: float) -> None:
        """Ring for a number, once, at a time of `time.monotonic`."""
        with self._changed:
            self._set[number] = when
            heappush(self._heap, (when, number))
            if self._heap[0][1] == number:
                self._changed.notify()

    def cancel(self, number: int) -> None:
        """Do not ring for a number any more, if it was set."""
        with self._changed:
            self._set.pop(number, None)
            if len(self._heap) > 2 * len(self._set) + 64:  # alarms that were cancelled long before their time
                self._heap = [(when, n) for n, when in self._set.items()]
                heapify(self._heap)

    def close(self) -> None:
        """End the thread; alarms that are still set never ring."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if current_thread() is not self.thread:
            self.thread.join()

    def _run(self) -> None:
        while (number := self._next()) is not None:
            self._ring(number)

    def _next(self) -> int | None:
        """The number whose time has come, waited for; None once closed."""
        with self._changed:
            while not self._closed:
                wait = self._heap[0][0] - monotonic() if self._heap else LONGEST_WAIT
                if wait > 0:
                    self._changed.wait(min(wait, LONGEST_WAIT))
                elif self._set.pop(number := heappop(self._heap)[1], None) is not None:
                    return number
        return None
