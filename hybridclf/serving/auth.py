"""API keys, compared in constant time."""

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path

from fastapi import FastAPI, Request

from ..errors import InvalidInputError
from .errors import Refusal

__all__ = ["ApiKeys", "check_private", "client_of", "network", "read_keys", "reload_keys"]

_log = logging.getLogger(__name__)


class ApiKeys:
    """Set of accepted API keys; an empty set accepts every request.

    Parameters
    ----------
    keys : iterable of str
        The accepted keys, each "KEY" or "NAME KEY". Keys of one name are one client's.

    Raises
    ------
    InvalidInputError
        For a text in place of a list, anything but one or two words, or one key twice.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # digests have one length: comparing the keys themselves would give theirs away
        if isinstance(keys, str):
            raise InvalidInputError("api_keys is one text; give a list of keys")
        self._names: dict[bytes, str] = {}
        for number, line in enumerate(keys, 1):
            name, key = _parsed(line, f"API key {number}")
            if _digest(key.encode()) in self._names:
                raise InvalidInputError(f"API key {number} is there twice; leave one out")
            self._names[_digest(key.encode())] = name

    def __bool__(self) -> bool:
        return bool(self._names)

    def client(self, authorization: str | None, address: str) -> str:
        """Name the client that shares are counted for: by its accepted key, or by its network if no key is asked for.

        A key without a name is called by the beginning of its digest. Nothing else that a client sends has a part in
        it, as it could send another name with each request.
        """
        if not self._names:
            return network(address)
        digest = _digest(_sent(authorization)[1])
        return self._names.get(digest) or digest.hex()[:16]

    def accept(self, authorization: str | None) -> bool:
        """Tell whether a header `Authorization: Bearer KEY` has one of the keys."""
        if not self._names:
            return True
        scheme, key = _sent(authorization)
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
    origin = request.headers.get("origin")
    if not keys and origin is not None and not _is_own(origin, request.headers.get("host", "")):
        raise Refusal(403, "pages of other sites may ask a server with API keys alone; start it with --api-key-file")
    return keys.client(authorization, request.client.host if request.client else "")


def _is_own(origin: str, host: str) -> bool:
    """Tell whether a page's origin is the server itself, by its address or a name of the local network.

    Without keys nothing else keeps a page of another site from making its visitor's browser ask. A public name could be
    made to point here while its page is open (DNS rebinding), so it does not count even if the request names it.
    """
    page = origin.rpartition("://")[2]
    name = page.partition("]")[0].lstrip("[") if page.startswith("[") else page.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return page == host and "." not in name
    return page == host


def _parsed(line: str, which: str) -> tuple[str, str]:
    """Name, which may be empty, and key of "KEY" or "NAME KEY"; no message has any of it, as it may be the key."""
    words = line.split()
    if not 1 <= len(words) <= 2 or any(word.startswith("#") for word in words):
        raise InvalidInputError(f"{which} is neither a KEY nor a NAME and a KEY; comments have lines of their own")
    return "".join(words[:-1]), words[-1]


def _sent(authorization: str | None) -> tuple[str, bytes]:
    """Scheme and key of a header `Authorization: Bearer KEY`, the key as the bytes that were sent."""
    scheme, _, key = (authorization or "").partition(" ")
    return scheme, key.strip().encode("latin-1", "replace")  # which a server decodes headers by


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def network(address: str) -> str:
    """Cut an IPv6 address to its /64, all of which is one client's to choose from; leave anything else as it is."""
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    if not isinstance(found, IPv6Address):
        return address
    # a socket for both families gives IPv4 addresses as ::ffff:192.0.2.1, all in one /64
    return str(found.ipv4_mapped or IPv6Network((int(found), 64), strict=False))


def check_private(private: bool, keys: Iterable[str] | ApiKeys) -> None:
    """Raise `InvalidInputError` for a private server without keys."""
    if private and not keys:
        raise InvalidInputError("a private server needs keys; give it some (--api-key-file)")


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
        If the file cannot be read, has no key, a line of another form, or a key twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the API keys in {path} cannot be read: {error}") from error
    keys = {n: line for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")}
    if not keys:
        raise InvalidInputError(f"{path} has no API key; write one per line")
    for number, line in keys.items():
        _parsed(line, f"line {number} of {path}")
    ApiKeys(keys.values())  # refuses a key that is there twice
    return list(keys.values())
