"""Manifests: JSON files that say what decides the content of a folder, compared before it is added to."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

__all__ = ["differences", "in_words", "parse_manifest", "read_manifest"]

KINDS = {
    "hybridclf": "another version of hybridclf",
    "model": "another model",
    "data/captions": "other captions",
    "data/right labels": "other labels",
    "data": "other images",
    "input": "other images",
    "settings": "other settings",
}
"""Words for what differs, by the beginning of its name; the first that fits counts."""

LISTED = 2
"""Most hashes that are listed as different: those of a model's files all say the same."""


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
    elif then != now and (_is_hash(then) or _is_hash(now)):
        yield f"{name} {'is new' if then is None else 'is missing' if now is None else 'changed'}"
    elif then != now:
        yield f"{name} was {_short(then)}, is {_short(now)}"


def in_words(then: Any, now: Any) -> str:
    """Say what the differences of two manifests come down to, then list them; "" if there is none.

    >>> in_words({"model": {"a": "0" * 16}, "settings": {"trials": 6}}, {"model": {}, "settings": {"trials": 8}})
    'another model, other settings (settings/trials was 6, is 8; model/a is missing)'
    """
    changes = list(differences(then, now))
    kinds = dict.fromkeys(
        next((words for start, words in KINDS.items() if change.startswith(start)), "something else")
        for change in changes
    )
    values = [change for change in changes if ", is " in change]
    listed = values + [change for change in changes if change not in values][:LISTED]
    more = [f"{len(changes) - len(listed)} more"] if len(changes) > len(listed) else []
    return f"{', '.join(kinds)} ({'; '.join(listed + more)})" if changes else ""


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16,}", value) is not None


def _short(value: Any) -> str:
    """Text of a value; of a long one the first characters."""
    text = "missing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
