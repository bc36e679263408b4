"""Limits of a server."""

from dataclasses import dataclass, fields

from ..utils.bounds import check_number, check_whole

__all__ = ["Limits"]


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
        Threads that decode images, at least 1.

    Raises
    ------
    InvalidInputError
        For a limit out of range.
    """

    queue: int = 128
    body_bytes: int = 10 * 2**20
    pixels: int = 25_000_000
    documents: int = 100
    upload_seconds: float = 30.0
    decoders: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "upload_seconds":
                check_number(field.name, value, at_least=1)
            else:
                check_whole(field.name, value, 0 if field.name == "queue" else 1)
