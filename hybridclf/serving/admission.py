"""Who gets in: as many images as the loop and its queue hold, and none while the server drains."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Refusal

__all__ = ["Admission"]


class Admission:
    """Counts the images in the server; used on the event loop alone.

    Parameters
    ----------
    capacity : int
        Images at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside = 0
        self.draining = False

    def check(self, images: int = 1) -> None:
        """Refuse if that many images cannot come in now.

        Raises
        ------
        Refusal
            503 while draining, 429 while full, 400 for more images than there ever is room for.
        """
        if self.draining:
            raise Refusal(503, "the server is shutting down; ask another one", "draining")
        if images > self.capacity:
            raise Refusal(400, f"got {images} images; at most {self.capacity} are taken at a time")
        if self.inside + images > self.capacity:
            raise Refusal(429, "the queue is full; try again later", "busy", {"Retry-After": "1"})

    @contextmanager
    def places(self, images: int) -> Iterator[None]:
        """Places for that many images: errors as for `check`."""
        self.check(images)
        self.inside += images
        try:
            yield
        finally:
            self.inside -= images
