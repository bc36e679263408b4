"""API keys, compared in a time that tells nothing about them."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["ApiKeys", "read_keys"]


class ApiKeys:
    """The keys that open a server; with none of them everybody may ask.

    Parameters
    ----------
    keys : iterable of str
        The accepted keys.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]  # of one length, whatever the keys'

    def accept(self, authorization: str | None) -> bool:
        """Whether a header `Authorization: Bearer KEY` has one of the keys."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them, whichever fits
        return any(matches) and scheme.lower() == "bearer"


def read_keys(path: str | Path) -> list[str]:
    """The keys in a file, one per line; empty lines and those that begin with # do not count.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or has no key.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the API keys in {path} cannot be read: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidInputError(f"{path} has no API key; write one per line")
    return keys
