"""The report of captions: table, JSON and page."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridclf.evaluating.caption_gallery import caption_examples
from hybridclf.evaluating.caption_lines import CaptionLine, Unreadable
from hybridclf.evaluating.caption_report import CaptionReport
from hybridclf.evaluating.caption_scores import rows_of
from hybridclf.evaluating.caption_verdict import caption_verdict

RIGHT, WRONG = np.eye(2), 1 - np.eye(2)


@pytest.fixture
def lines(tmp_path: Path) -> list[CaptionLine]:
    """Forty lines, each of a red and a blue picture of its own."""
    found = []
    for n in range(1, 41):
        images = tmp_path / f"{n}a.png", tmp_path / f"{n}b.png"
        for path, colour in zip(images, ("red", "blue"), strict=True):
            Image.new("RGB", (8, 6), colour).save(path)
        found.append(CaptionLine(n, images, ("of a", "of <b>"), "swap"))
    return found


def report(
    lines: list[CaptionLine], n_fixed: int, n_broken: int = 0, fusion: str | None = "the classifier's"
) -> CaptionReport:
    """Tier 1 is wrong about the first lines, tier 2 about the last."""
    n = len(lines)
    scores = [
        {"tier 1": WRONG if i < n_fixed else RIGHT, "tier 2": WRONG if i >= n - n_broken else RIGHT} for i in range(n)
    ]
    rows = rows_of(lines, scores)
    verdict = caption_verdict(rows, lines, scores)
    about = {"lines": n, "lines_in_all": 50, "images": 2 * n, "trials": 4, "fusion": fusion}
    about |= {"model": "A and B", "hybridclf": "0"}
    examples = caption_examples(verdict, lines, scores, seed=0)
    return CaptionReport(rows, [Unreadable(77, "no [bold]image[/bold]")], about, verdict, examples)


def test_the_table(lines: list[CaptionLine]) -> None:
    shown = str(report(lines, 10))
    assert shown.startswith("Tier 2 alone adds 25.0 points") and "40 lines, 80 images, 4 trials" in shown
    assert "100.0 [91.2, 100.0]" in shown and "- tier 1" in shown
    assert "A sample of 41 of 50 lines" in shown and "1 lines were left out: line 77: no [bold]image[/bold]" in shown
    assert "The fusion of both tiers is the classifier's." in shown
    assert "Tiers are not fused: the classifier has no fitted fusion" in str(report(lines, 1, fusion=None))


@pytest.mark.parametrize(
    ("fixed", "broken", "pays", "said"),
    [
        (10, 0, True, "Tier 2 alone adds 25.0 points (8.7 to 38.9) to tier 1's text score of 75.0 %."),
        (0, 10, False, "Tier 2 alone does harm here, -25.0 points"),
        (0, 0, None, "40 lines cannot tell whether tier 2 alone adds anything to tier 1's text score of 100.0 %"),
        (2, 1, None, "40 lines cannot tell whether tier 2 alone adds anything"),
    ],
)
def test_the_verdict(lines: list[CaptionLine], fixed: int, broken: int, pays: bool | None, said: str) -> None:
    verdict = report(lines, fixed, broken).verdict
    assert verdict.pays is pays and str(verdict).startswith(said), str(verdict)
    assert verdict.fixed == list(range(1, fixed + 1)) and verdict.broken == list(range(41 - broken, 41))


def test_without_a_tier_1_there_is_chance(lines: list[CaptionLine]) -> None:
    scores = [{"tier 2": RIGHT}] * 40
    verdict = caption_verdict(rows_of(lines, scores), lines, scores)
    assert str(verdict) == "Tier 2 has a text score of 100.0 % (91.2 to 100.0); chance gives 25.0."
    assert (verdict.pays, verdict.baseline, verdict.fixed) == (None, None, [])


def test_json_and_page(lines: list[CaptionLine], tmp_path: Path) -> None:
    made = report(lines, 12, 1)
    json_file, page = made.write(tmp_path / "new")
    found = json.loads(json_file.read_text())
    assert found == json.loads(made.to_json()) and found["unreadable"][0]["line"] == 77
    assert found["rows"][2]["score"] == "group" and found["verdict"]["broken"] == [40] and "examples" not in found
    text = page.read_text()
    assert text.count("data:image/png") == 2 * (10 + 1) and "12 lines that re-ranking fixed" in text
    assert "of &lt;b&gt;" in text and "<script" not in text and "http" not in text.replace("http-equiv", "")


def test_examples_say_what_was_chosen(lines: list[CaptionLine]) -> None:
    example = report(lines, 1).examples[0]
    assert (example.fixed, example.line, len(example.parts)) == (True, 1, 2)
    first, second = example.parts[0].captions
    assert (first.right, first.before, first.after) == (True, False, True)
    assert (second.right, second.before, second.after) == (False, True, False)
