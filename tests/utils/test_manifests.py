"""Manifests: read whole, and compared by their deepest values."""

from pathlib import Path
from typing import Any

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.utils.manifests import differences, in_words, read_manifest


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a/b was 1, is 3"]),
        ({"a": 1}, {"b": 2}, ["a was 1, is missing", "b was missing, is 2"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a was {'b': 1}, is 1"]),
        ({"a": "0" * 64}, {"a": "1" * 64}, ["a changed"]),
        ({"a": "0" * 16}, {"b": "1" * 16}, ["a is missing", "b is new"]),
        ({"a": ["cat"] * 20}, {"a": ["dog"]}, ["a was ['cat', 'cat…, is ['dog']"]),
    ],
)
def test_differences_name_the_deepest_key(then: Any, now: Any, expected: list[str]) -> None:
    assert list(differences(then, now)) == expected


def test_differences_come_down_to_a_few_words() -> None:
    then = {"model": {f"{i}.safetensors": "0" * 64 for i in range(7)}, "settings": {"trials": 6, "candidates": 3}}
    now = {"model": dict.fromkeys(then["model"], "1" * 64), "settings": {"trials": 8, "candidates": 4}}
    assert in_words(then, then) == ""
    assert in_words(then, now) == (
        "another model, other settings (settings/trials was 6, is 8; settings/candidates was 3, is 4; "
        "model/0.safetensors changed; model/1.safetensors changed; 5 more)"
    )
    data = {"data": {"images": 250, "pixels": "0" * 16, "right labels": "0" * 16}}
    assert in_words(data, {"data": data["data"] | {"right labels": "1" * 16}}).startswith("other labels (")
    assert in_words({"format": 1}, {"format": 2}) == "something else (format was 1, is 2)"


def test_a_manifest_is_a_json_object(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"a": 1}')
    assert read_manifest(path) == {"a": 1}
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match="cannot be read as a manifest; give another folder"):
            read_manifest(path)
