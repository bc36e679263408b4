"""Lines of images and captions: the three forms, and lines that cost only themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.caption_lines import MAX_LINE, read_lines


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


GOOD = {"image": "a.png", "caption": "right", "wrong": ["one", "two"]}


def test_three_forms(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        GOOD | {"kind": "colour", "author": "me"},
        "",
        {"images": ["a.png", "/b.png"], "captions": ["of a", "of b"]},
        {"images": ["a.png", "b.png", "c.png"], "caption": "of a", "kind": None},
    )
    lines, unreadable = read_lines(source)
    assert unreadable == [] and [line.line for line in lines] == [1, 3, 4]
    one, pair, choice = lines
    assert one.images == (tmp_path / "a.png",) and one.captions == ("right", "one", "two") and one.kind == "colour"
    assert pair.images == (tmp_path / "a.png", Path("/b.png")) and pair.captions == ("of a", "of b")
    assert [line.n_right for line in lines] == [1, 2, 1] and choice.captions == ("of a",) and choice.kind == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 10_000, "not a JSON object"),
        (json.dumps(GOOD | {"more": "x" * MAX_LINE}), "not a JSON object in at most"),
        ({}, 'it has no field; a line is {"image": PATH'),
        ({"image": "a.png", "caption": "right"}, "it has 'image', 'caption'; a line is"),
        (GOOD | {"captions": ["a"]}, "a line is"),
        (GOOD | {"wrong": []}, "it has 1 images and 1 captions; there must be something to choose from"),
        (GOOD | {"wrong": "one"}, "a list of texts is needed, got 'one'"),
        (GOOD | {"wrong": ["right"]}, "has a caption twice"),
        (GOOD | {"wrong": [""]}, "captions that are texts and not empty"),
        (GOOD | {"wrong": [["a"]]}, "captions that are texts and not empty"),
        (GOOD | {"wrong": [f"caption {i}" for i in range(100)]}, "it has 1 images and 101 captions"),
        (GOOD | {"image": 3}, "an image must be the path of a file, got"),
        (GOOD | {"kind": 3}, '"kind" must be a text, got 3'),
        ({"images": ["a", "b"], "captions": ["a", "b", "c"]}, "it has 2 images and 3 captions"),
    ],
)
def test_a_line_that_cannot_be_used_costs_only_itself(tmp_path: Path, line: Any, said: str) -> None:
    lines, (unreadable,) = read_lines(write(tmp_path, GOOD, line, GOOD))
    assert [one.line for one in lines] == [1, 3] and unreadable.line == 2 and said in str(unreadable)


def test_a_file_without_a_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"captions.jsonl has no line that can be used: it is empty. A line is"):
        read_lines(write(tmp_path))
    with pytest.raises(InvalidInputError, match="no line that can be used: line 1: not a JSON object"):
        read_lines(write(tmp_path, "x"))
    with pytest.raises(InvalidInputError, match=r"none.jsonl cannot be read: No such file"):
        read_lines(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps(GOOD).encode())
    lines, unreadable = read_lines(tmp_path / "bytes.jsonl")
    assert len(lines) == len(unreadable) == 1
