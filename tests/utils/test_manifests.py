"""Manifests: read whole, and compared by their deepest values."""

from pathlib import Path
from typing import Any

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.utils.manifests import differences, read_manifest


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a/b was 1, is 3"]),
        ({"a": 1}, {"b": 2}, ["a was 1, is missing", "b was missing, is 2"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a was {'b': 1}, is 1"]),
        ({"a": "0" * 64}, {"a": "1" * 64}, ["a was 000000000000…, is 111111111111…"]),
    ],
)
def test_differences_name_the_deepest_key(then: Any, now: Any, expected: list[str]) -> None:
    assert list(differences(then, now)) == expected


def test_a_manifest_is_a_json_object(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"a": 1}')
    assert read_manifest(path) == {"a": 1}
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match="cannot be read as a manifest; give another folder"):
            read_manifest(path)
