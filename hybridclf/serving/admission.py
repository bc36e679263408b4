"""Admission control: no more images than the loop and its queue hold, and none while the server drains."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Refusal

__all__ = ["Admission"]


class Admission:
    """Counter of the images in the server, for use on the event loop alone, hence without a lock.

    Parameters
    ----------
    capacity : int
        Most images at a time. A sixteenth of the places is kept from a client that has all others.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.share = capacity, capacity - capacity // 16
        self.draining = False
        self._inside = Counter[str]()

    @property
    def inside(self) -> int:
        """Images in the server."""
        return self._inside.total()

    def check(self, client: str, images: int = 1) -> None:
        """Check that so many images of a client may come in now.

        Raises
        ------
        Refusal
            503 while draining, 429 while full or the client's share is taken, 400 for more images than that.
        """
        if self.draining:
            raise Refusal(503, "the server is shutting down; ask another one", "draining")
        if images > self.share:
            raise Refusal(400, f"got {images} images; at most {self.share} are taken at a time")
        if self.inside + images > self.capacity or self._inside[client] + images > self.share:
            raise Refusal(429, "the queue is full; try again later", "busy", {"Retry-After": "1"})

    @contextmanager
    def places(self, client: str, images: int) -> Iterator[None]:
        """Hold places for so many images of a client, in a `with` block; errors as in `check`."""
        self.check(client, images)
        self._inside[client] += images
        try:
            yield
        finally:
            self._inside[client] -= images
            if not self._inside[client]:
                del self._inside[client]
