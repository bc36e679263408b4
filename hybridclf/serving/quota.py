"""Quota of a client: images per minute."""

import math
from time import monotonic

from .errors import Refusal

__all__ = ["Quota"]

MOST_CLIENTS = 10_000
"""Clients that are remembered before those with a full quota are forgotten."""


class Quota:
    """Images that each client may ask about, so many a minute; for use on the event loop alone, hence without a lock.

    A client may spend a minute's images at once, and gets one back every `60 / images_per_minute` seconds (the generic
    cell rate algorithm of ITU-T I.371).

    Parameters
    ----------
    images_per_minute : int or None
        Quota of a client; None for any number.
    """

    def __init__(self, images_per_minute: int | None) -> None:
        self.images_per_minute = images_per_minute
        self._full: dict[str, float] = {}  # when a client will have all of its quota again

    def spend(self, client: str, images: int) -> None:
        """Take images from a client's quota.

        Raises
        ------
        Refusal
            429 if it has not so many left; 400 for more than a minute's.
        """
        if self.images_per_minute is None:
            return
        if images > self.images_per_minute:
            raise Refusal(400, f"got {images} images; a client may ask about {self.images_per_minute} a minute")
        now = monotonic()
        full = max(self._full.get(client, now), now) + 60 * images / self.images_per_minute
        if full > now + 60:
            wait = {"Retry-After": str(math.ceil(full - now - 60))}
            raise Refusal(429, f"you may ask about {self.images_per_minute} images a minute", "quota", wait)
        if len(self._full) >= MOST_CLIENTS:
            self._full = {name: time for name, time in self._full.items() if time > now}
        self._full[client] = full
