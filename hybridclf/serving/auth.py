"""API keys, compared in constant time."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ..errors import InvalidInputError

__all__ = ["ApiKeys", "read_keys"]


class ApiKeys:
    """Set of accepted API keys; an empty set accepts every request.

    Parameters
    ----------
    keys : iterable of str
        The accepted keys.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # digests have one length: comparing the keys themselves would give theirs away
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def accept(self, authorization: str | None) -> bool:
        """Tell whether a header `Authorization: Bearer KEY` has one of the keys."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        # all keys, even after a match: the time must not tell which one matched
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches) and scheme.lower() == "bearer"


def read_keys(path: str | Path) -> list[str]:
    """Read the keys in a file, one per line; empty lines and comments (#) are skipped.

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
