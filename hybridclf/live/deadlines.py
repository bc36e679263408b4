"""Deadlines kept by a thread of their own."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from threading import Condition, Lock, Thread, current_thread
from time import monotonic

__all__ = ["Deadlines"]

LONGEST_WAIT = 3600.0
"""Longest single wait in seconds; longer ones are split, as the operating system bounds them."""


class Deadlines:
    """Timer that calls `ring(number)` on its own thread when a number's deadline has come.

    Parameters
    ----------
    ring : function
        Callback of a deadline. It must be quick, since the next deadline waits for it.
    """

    def __init__(self, ring: Callable[[int], None]) -> None:
        self._ring = ring
        self._changed = Condition(Lock())
        # the heap orders all deadlines ever set; those missing from `_set` were cancelled and are skipped
        self._heap: list[tuple[float, int]] = []
        self._set: dict[int, float] = {}
        self._closed = False
        self.thread = Thread(target=self._run, name="hybridclf-alarms", daemon=True)
        self.thread.start()

    def set(self, number: int, when: float) -> None:
        """Set the deadline of a number, by `time.monotonic`; it rings once."""
        with self._changed:
            self._set[number] = when
            heappush(self._heap, (when, number))
            if self._heap[0][1] == number:  # sooner than what the thread waits for
                self._changed.notify()

    def cancel(self, number: int) -> None:
        """Cancel a number's deadline, if there is one."""
        with self._changed:
            self._set.pop(number, None)
            if len(self._heap) > 2 * len(self._set) + 64:  # mostly cancelled ones: build the heap anew
                self._heap = [(when, n) for n, when in self._set.items()]
                heapify(self._heap)

    def close(self) -> None:
        """End the thread; remaining deadlines never ring."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if current_thread() is not self.thread:
            self.thread.join()

    def _run(self) -> None:
        while (number := self._next()) is not None:
            self._ring(number)

    def _next(self) -> int | None:
        """Wait for the next deadline and return its number; None once closed."""
        with self._changed:
            while not self._closed:
                wait = self._heap[0][0] - monotonic() if self._heap else LONGEST_WAIT
                if wait > 0:
                    self._changed.wait(min(wait, LONGEST_WAIT))
                elif self._set.pop(number := heappop(self._heap)[1], None) is not None:
                    return number
        return None
