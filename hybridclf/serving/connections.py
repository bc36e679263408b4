"""Bounds of connections: their number, the time for a request's header, and what is read after a refusal."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

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
        Most connections; one beyond them gets 503.
    header_seconds : float
        Longest time from a connection's or request's first byte to the end of its header; then it is closed.
    """

    class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        _swallowed = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.write(_FULL)
                transport.close()
            self._watch()

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
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self.transport.close)

        def _unwatch(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol
