"""API keys, compared in constant time."""

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI

from ..errors import InvalidInputError

__all__ = ["ApiKeys", "read_keys", "reload_keys"]

_log = logging.getLogger(__name__)


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

    @staticmethod
    def client(authorization: str | None, address: str) -> str:
        """Name the client that shares are counted for: a digest of its key, or its address if it sends none."""
        return sha256(authorization.encode()).hexdigest()[:16] if authorization else address

    def accept(self, authorization: str | None) -> bool:
        """Tell whether a header `Authorization: Bearer KEY` has one of the keys."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        # all keys, even after a match: the time must not tell which one matched
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches) and scheme.lower() == "bearer"


def reload_keys(app: FastAPI, path: str | Path) -> None:
    """Read the keys of an application of `create_app` anew; if that fails, say so in the log and keep the old ones."""
    try:
        app.state.keys = ApiKeys(read_keys(path))
    except InvalidInputError as error:
        _log.error("%s; the keys so far stay", error)
    else:
        _log.warning("the API keys were read anew")


def read_keys(path: str | Path) -> list[str]:
    """Read the keys in a file, one per line; empty lines and comments (#) are skipped.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or has no key.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the API keys in {path} cannot be read: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidInputError(f"{path} has no API key; write one per line")
    return keys
