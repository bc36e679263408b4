"""Admission control: no more images than the loop and its queue hold, and none while the server drains."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Refusal

__all__ = ["Admission"]


class Admission:
    """Counter of the images in the server, for use on the event loop alone, hence without a lock.

    Parameters
    ----------
    capacity : int
        Most images at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside = 0
        self.draining = False

    def check(self, images: int = 1) -> None:
        """Check that so many images may come in now.

        Raises
        ------
        Refusal
            503 while draining, 429 while full, 400 for more images than the capacity.
        """
        if self.draining:
            raise Refusal(503, "the server is shutting down; ask another one", "draining")
        if images > self.capacity:
            raise Refusal(400, f"got {images} images; at most {self.capacity} are taken at a time")
        if self.inside + images > self.capacity:
            raise Refusal(429, "the queue is full; try again later", "busy", {"Retry-After": "1"})

    @contextmanager
    def places(self, images: int) -> Iterator[None]:
        """Hold places for so many images, in a `with` block; errors as in `check`."""
        self.check(images)
        self.inside += images
        try:
            yield
        finally:
            self.inside -= images
