"""Bounds of connections: their number, the time for a request's header, and what is read after a refusal."""

import asyncio
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .auth import network

__all__ = ["SWALLOWED", "bounded_protocol"]

SWALLOWED = 2**24
"""Bytes of a body that are still read after its request was refused: clients send all of it before they look.

Closed earlier, a connection is reset, and a client that was a little over the limit would not see why.
"""

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def bounded_protocol(most: int, header_seconds: float) -> type[asyncio.Protocol]:
    """Make uvicorn's protocol class with bounds.

    Parameters
    ----------
    most : int
        Most connections. One beyond them takes the place of one that waits for a request and is of the address with
        the most, if its own has fewer even with it; else it gets 503.
    header_seconds : float
        Longest time from a connection's or request's first byte to the end of its header; then it is closed.
    """
    bounds = {"_most": most, "_header_seconds": header_seconds, "_held": Counter[str]()}
    return type("BoundedProtocol", (_BoundedProtocol,), bounds)


class _BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, whose bounds `bounded_protocol` sets."""

    _most: ClassVar[int]
    _header_seconds: ClassVar[float]
    _held: ClassVar[Counter[str]]
    """Number of connections by address."""

    _timer: asyncio.TimerHandle | None = None
    _swallowed = 0
    _address = ""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._address = network(self.client[0]) if self.client else ""
        self._held[self._address] += 1
        if len(self.connections) > self._most and not self._displaces_another():
            transport.write(_FULL)
            transport.close()
        self._watch()

    def _displaces_another(self) -> bool:
        address, n = self._held.most_common(1)[0]
        if self._held[self._address] >= n:
            return False
        waiting = (other for other in self.connections if other._address == address and other._waits)
        if (other := next(waiting, None)) is not None:
            other.transport.close()
        return other is not None

    @property
    def _waits(self) -> bool:
        """True between requests."""
        idle = self.cycle is None or self.cycle.response_complete
        return idle and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # part of a header, or what is left of a body
            self._swallowed += len(data)
            self._watch()
        else:
            self._swallowed = 0
            self._unwatch()
        if self._swallowed > SWALLOWED:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._held[self._address] -= 1
        if not self._held[self._address]:
            del self._held[self._address]
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._header_seconds, self.transport.close)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
