"""Limits of a server."""

from dataclasses import dataclass, fields

from ..data.decoders import DECODE_SECONDS, MAX_PIXELS
from ..errors import InvalidInputError
from ..utils.bounds import check_number, check_whole

__all__ = ["UNREADY", "Limits"]

UNREADY = 0.25
"""Share of `Limits.stuck_seconds` from which the server is not ready."""

_LOWEST = {"queue": 0, "decode_seconds": 0.1, "total_bytes": 2}
"""Lowest values other than 1."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server, which keep one request from delaying all others.

    Parameters
    ----------
    queue : int
        Most images that wait for a place in the loop, at least 0.
    body_bytes : int
        Largest body of a request, at least 1.
    pixels : int
        Most pixels of an image, at least 1.
    documents : int
        Most labels in a request, at least 1.
    upload_seconds : float
        Longest time to send a body, at least 1.
    decoders : int
        Processes that decode images, at least 1.
    decode_seconds : float
        Longest time to decode an image, at least 0.1 and less than a quarter of `stuck_seconds`: no image within it may
        make the server unready.
    total_bytes : int
        Most bytes of bodies and images in the server at a time, of which one client may hold half; at least 2.
    stuck_seconds : float
        Age of a batch or a decoding from which the server counts as stuck, at least 1. After a quarter of it the server
        is not ready.
    deadline_seconds : float or None
        Deadline of requests that name none, above 0 and at most `max_deadline_seconds`. None: the latter.
    max_deadline_seconds : float or None
        Longest deadline, above 0: a longer one is cut to it. None: any, or none at all.
    images_per_minute : int or None
        Images that a client may ask about in a minute, at least 1. None: any number.

    Raises
    ------
    InvalidInputError
        For a limit out of range, or a `decode_seconds` too long for `stuck_seconds`.
    """

    queue: int = 128
    body_bytes: int = 10 * 2**20
    pixels: int = MAX_PIXELS
    documents: int = 100
    upload_seconds: float = 30.0
    decoders: int = 2
    decode_seconds: float = DECODE_SECONDS
    total_bytes: int = 256 * 2**20
    stuck_seconds: float = 60.0
    deadline_seconds: float | None = None
    max_deadline_seconds: float | None = None
    images_per_minute: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if "deadline" in field.name:
                check_number(field.name, value, above=0)
                continue
            lowest = _LOWEST.get(field.name, 1)
            if field.name.endswith("_seconds"):
                check_number(field.name, value, at_least=lowest)
            else:
                check_whole(field.name, value, int(lowest))
        if self.decode_seconds >= UNREADY * self.stuck_seconds:
            raise InvalidInputError(
                f"decode_seconds is {self.decode_seconds:g} and stuck_seconds {self.stuck_seconds:g}: an image of that "
                "time would make the server unready; give a stuck_seconds (--stuck-after) above "
                f"{self.decode_seconds / UNREADY:g}"
            )
        most = self.max_deadline_seconds
        if most is not None and self.deadline_seconds is not None and self.deadline_seconds > most:
            raise InvalidInputError(
                f"deadline_seconds is {self.deadline_seconds:g} and max_deadline_seconds {most:g}; give at most "
                "the latter as the default"
            )

    def deadline(self, asked: float | None) -> float | None:
        """Seconds that a request has, by the seconds that it asks for; None for any time."""
        wanted = [value for value in (asked or self.deadline_seconds, self.max_deadline_seconds) if value is not None]
        return min(wanted, default=None)
