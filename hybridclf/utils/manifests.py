"""Manifests: JSON files that say what decides the content of a folder, compared before it is added to."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

__all__ = ["differences", "parse_manifest", "read_manifest"]


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises
    ------
    InvalidInputError
        If the file is no JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: object) -> dict[str, Any]:
    """Parse the content of a manifest; the path is for the message.

    Raises
    ------
    InvalidInputError
        If it is no JSON object.
    """
    with suppress(ValueError):
        manifest = json.loads(content)
        if isinstance(manifest, dict):
            return manifest
    raise InvalidInputError(f"{path} cannot be read as a manifest; give another folder")


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """List the differences of two JSON values, a text each.

    >>> list(differences({"settings": {"trials": 6}}, {"settings": {"trials": 8}}))
    ['settings/trials was 6, is 8']
    """
    if isinstance(then, dict) and isinstance(now, Mapping):
        for key in then | dict(now):
            yield from differences(then.get(key), now.get(key), f"{name}/{key}" if name else key)
    elif then != now:
        yield f"{name} was {_short(then)}, is {_short(now)}"


def _short(value: Any) -> str:
    """Text of a value; of a hash or another long one the first characters."""
    text = "missing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
