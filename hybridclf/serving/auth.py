"""API keys, compared in constant time."""

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request

from ..errors import InvalidInputError
from .errors import Refusal

__all__ = ["ApiKeys", "client_of", "read_keys", "reload_keys"]

_log = logging.getLogger(__name__)


class ApiKeys:
    """Set of accepted API keys; an empty set accepts every request.

    Parameters
    ----------
    keys : iterable of str
        The accepted keys, each "KEY" or "NAME KEY". Keys of one name are one client's.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # digests have one length: comparing the keys themselves would give theirs away
        named = [key.rpartition(" ") for key in keys]
        self._names = {_digest(key): name.strip() for name, _, key in named}

    def __bool__(self) -> bool:
        return bool(self._names)

    def client(self, authorization: str | None, address: str) -> str:
        """Name the client that shares are counted for: by its accepted key, or by its network if no key is asked for.

        A key without a name is called by the beginning of its digest. Nothing else that a client sends has a part in
        it, as it could send another name with each request.
        """
        if not self._names:
            return _network(address)
        digest = _digest(_split(authorization)[1])
        return self._names.get(digest) or digest.hex()[:16]

    def accept(self, authorization: str | None) -> bool:
        """Tell whether a header `Authorization: Bearer KEY` has one of the keys."""
        if not self._names:
            return True
        scheme, key = _split(authorization)
        digest = _digest(key)
        # all keys, even after a match: the time must not tell which one matched
        matches = [hmac.compare_digest(digest, known) for known in self._names]
        return any(matches) and scheme.lower() == "bearer"


def client_of(request: Request) -> str:
    """Check the key of a request, and name its client.

    Raises
    ------
    Refusal
        401 without an accepted key; 403 for the page of another site, where there are no keys.
    """
    keys: ApiKeys = request.app.state.keys
    authorization = request.headers.get("authorization")
    if not keys.accept(authorization):
        raise Refusal(401, "send an API key, Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})
    # a page of another site may make a visitor's browser ask, and without keys nothing else would tell
    origin = request.headers.get("origin")
    if not keys and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refusal(403, "pages of other sites may ask a server with API keys alone")
    return keys.client(authorization, request.client.host if request.client else "")


def _split(authorization: str | None) -> tuple[str, str]:
    """Split a header `Authorization: Bearer KEY` into scheme and key."""
    scheme, _, key = (authorization or "").partition(" ")
    return scheme, key.strip()


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _network(address: str) -> str:
    """Cut an IPv6 address to its /64, all of which is one client's to choose from; leave anything else as it is."""
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    if not isinstance(found, IPv6Address):
        return address
    # a socket for both families gives IPv4 addresses as ::ffff:192.0.2.1, all in one /64
    return str(found.ipv4_mapped or IPv6Network((int(found), 64), strict=False))


def reload_keys(app: FastAPI, path: str | Path) -> None:
    """Read the keys of an application of `create_app` anew; if that fails, say so in the log and keep the old ones."""
    try:
        app.state.keys = ApiKeys(read_keys(path))
    except InvalidInputError as error:
        _log.error("%s; the keys so far stay", error)
    else:
        _log.warning("the API keys were read anew")


def read_keys(path: str | Path) -> list[str]:
    """Read the keys in a file, one per line, "KEY" or "NAME KEY"; empty lines and comments (#) are skipped.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or has no key.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the API keys in {path} cannot be read: {error}") from error
    keys = [" ".join(line.split()) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidInputError(f"{path} has no API key; write one per line")
    return keys
