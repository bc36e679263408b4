"""Byte budget: what all requests hold together, from the first byte of a body to the answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from .errors import Refusal

__all__ = ["ByteBudget", "Hold"]


class ByteBudget:
    """Count of the bytes that requests hold: bodies, then images; for use from any thread.

    Parameters
    ----------
    total : int
        Most bytes at a time. A single client may hold half of them.
    """

    def __init__(self, total: int) -> None:
        self.total, self.share = total, max(1, total // 2)
        self._lock = Lock()
        self._held: dict[str, int] = {}

    @property
    def held(self) -> int:
        """Bytes that all requests hold now."""
        with self._lock:
            return sum(self._held.values())

    @contextmanager
    def hold(self, client: str) -> Iterator["Hold"]:
        """Hold bytes for one request, in a `with` block; they are free again at its end."""
        hold = Hold(self, client)
        try:
            yield hold
        finally:
            hold.close()

    def _change(self, client: str, by: int) -> None:
        with self._lock:
            all_held, held = sum(self._held.values()), self._held.get(client, 0)
            if by > 0 and (all_held + by > self.total or held + by > self.share):
                raise Refusal(429, "the server's memory is taken; try again later", "busy", {"Retry-After": "1"})
            self._held[client] = held + by
            if not self._held[client]:
                del self._held[client]


class Hold:
    """Bytes that one request holds.

    Parameters
    ----------
    budget : ByteBudget
        Budget they are taken from.
    client : str
        Name of the client.
    """

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self._budget, self.client = budget, client
        self._lock = Lock()
        self._held, self._closed = 0, False

    def reserve(self, n_bytes: int) -> None:
        """Take so many bytes more.

        Raises
        ------
        Refusal
            429 if the budget or the client's half of it is taken, 413 for a request that needs more than that half.
        """
        with self._lock:
            if self._held + n_bytes > self._budget.share:
                raise Refusal(
                    413, f"the request takes more than {self._budget.share} bytes of memory; send fewer images"
                )
            if self._closed:  # the request has ended, and a thread still works for it
                raise Refusal(499, "the client has gone", "gone")
            self._budget._change(self.client, n_bytes)
            self._held += n_bytes

    def release(self, n_bytes: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            n_bytes = min(n_bytes, self._held)
            self._budget._change(self.client, -n_bytes)
            self._held -= n_bytes

    def close(self) -> None:
        """Give all bytes back, and take none from now on."""
        with self._lock:
            self._budget._change(self.client, -self._held)
            self._held, self._closed = 0, True
