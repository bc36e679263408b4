"""`hybridclf evaluate` of captions, from arguments to the file."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from hybridclf.cli import app
from tests.adapters.tiny_pair import specs_of


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def source(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    """Two lines that can be used, and one that cannot."""
    for i, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / f"{i}.png")
    lines = [
        {"images": ["0.png", "1.png"], "captions": ["a cat on a dog", "a dog on a cat"], "kind": "objects"},
        {"image": "2.png", "caption": "a red cat", "wrong": ["a blue cat"], "kind": "colours"},
        {"image": "none.png", "caption": "a red cat", "wrong": ["a blue cat"]},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_two_tiers_by_name(text_pair: Path, source: Path, tmp_path: Path) -> None:
    tiers = [word for pair in zip(("--proposer", "--denoiser"), specs_of(text_pair), strict=True) for word in pair]
    arguments = [source, *tiers, "--trials", "2", "--quiet", "--out", tmp_path / "out"]
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "out" / "captions.json").read_text())
    rows = [f"{row['kind']} {row['score']} {row['n']}" for row in found["rows"]]
    assert rows[:4] == ["objects text 1", "objects image 1", "objects group 1", "colours text 1"]
    assert found["unreadable"][0]["line"] == 3 and found["about"]["fusion"] is None
    assert found["verdict"]["sentence"] in (tmp_path / "out" / "captions.html").read_text().replace("&#39;", "'")
    assert (tmp_path / "out" / "recording" / "manifest.json").exists()
    shown = invoke(*arguments).stdout
    assert "2 lines, 3 images, 2 trials" in shown and "1 lines were left out: line 3" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "captions need two models of text: --model shapes, or --proposer and --denoiser"),
        (["--model", "digits", "--top-k", "3"], "--top-k is for labelled images"),
        (["--model", "digits", "--labels", "a,b"], "--labels is for labelled images"),
        (["--model", "digits"], "captions need a denoiser that is a model of text"),
    ],
)
def test_what_cannot_be_matched_is_said_in_a_line(source: Path, arguments: list[str], said: str) -> None:
    result = invoke(source, *arguments)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1
