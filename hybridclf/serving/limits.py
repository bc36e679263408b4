"""What one server takes at most."""

from dataclasses import dataclass, fields

from ..utils.bounds import check_number, check_whole

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one request from costing all others.

    Parameters
    ----------
    queue : int
        Images that may wait for a place in the loop; at least 0.
    body_bytes : int
        Size of a request's body.
    pixels : int
        Pixels of one image.
    documents : int
        Labels in one request.
    upload_seconds : float
        Time that a client may take to send a body, at least 1.
    decoders : int
        Threads that decode images.
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
