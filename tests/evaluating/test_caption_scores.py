"""Text, image and group scores against their definitions."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from hybridclf.evaluating.caption_lines import CaptionLine
from hybridclf.evaluating.caption_scores import matches, rows_of
from hybridclf.metrics import accuracy, accuracy_difference

A, B = Path("a.png"), Path("b.png")


def pair(kind: str = "") -> CaptionLine:
    return CaptionLine(1, (A, B), ("of a", "of b"), kind)


def test_winoground_scores_are_those_of_the_paper() -> None:
    """Equation 9 of arXiv 2303.16203, and its like for images, in all orders of four scores."""
    counts = {"text": 0, "image": 0, "group": 0}
    for order in permutations(range(4)):
        s = np.array(order, dtype=float).reshape(2, 2)  # image, caption
        text = s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]
        image = s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1]
        found = matches(pair(), {"tier 2": s})
        assert found == {"text": {"tier 2": text}, "image": {"tier 2": image}, "group": {"tier 2": text and image}}
        for name in counts:
            counts[name] += found[name]["tier 2"]
    rows = {row.score: row for row in rows_of([pair()], [{"tier 2": np.eye(2)}])}
    assert {name: count / 24 for name, count in counts.items()} == {n: pytest.approx(r.chance) for n, r in rows.items()}


def test_one_image_or_one_caption_has_one_score() -> None:
    captions = CaptionLine(1, (A,), ("right", "wrong", "worse"))
    assert matches(captions, {"m": np.array([[3.0, 1, 2]])}) == {"text": {"m": True}}
    assert matches(captions, {"m": np.array([[3.0, 3, 2]])}) == {"text": {"m": False}}, "a tie is no answer"
    images = CaptionLine(1, (A, B), ("of a",))
    assert matches(images, {"m": np.array([[3.0], [4]])}) == {"image": {"m": False}}
    (row,) = rows_of([captions], [{"m": np.array([[3.0, 1, 2]])}])
    assert row.chance == pytest.approx(1 / 3) and row.gains == {}


def test_rows_by_kind_and_of_all() -> None:
    lines = [pair("b"), pair("b"), CaptionLine(3, (A,), ("right", "wrong"), "a"), CaptionLine(4, (A,), ("x", "y"))]
    right, wrong = np.eye(2), 1 - np.eye(2)
    scores = [
        {"tier 1": wrong, "tier 2": right},
        {"tier 1": right, "tier 2": right},
        {"tier 1": right[:1], "tier 2": wrong[:1]},
        {"tier 1": right[:1], "tier 2": right[:1]},
    ]
    rows = {(row.kind, row.score): row for row in rows_of(lines, scores)}
    shared = [("all", "text"), ("all", "image"), ("all", "group")]
    assert list(rows) == [("b", "text"), ("b", "image"), ("b", "group"), ("a", "text"), *shared]
    both = rows["b", "group"]
    assert (both.n, both.methods["tier 1"].value, both.methods["tier 2"].value) == (2, 0.5, 1)
    assert both.gains["tier 2"].value == 0.5 and both.chance == pytest.approx(1 / 6)
    every = rows["all", "text"]
    assert every.n == 4 and every.methods["tier 1"].value == 0.75 and every.gains["tier 2"].value == 0
    assert every.chance == pytest.approx((1 / 4 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
    assert [row.kind for row in rows_of(lines[:2], scores[:2])] == ["b"] * 3, "one kind alone has no second table"
    three = CaptionLine(1, (A, B, A), ("1", "2", "3"))
    assert [row.chance for row in rows_of([three], [{"m": np.eye(3)}])] == [pytest.approx(1 / 27)] * 2 + [None]


def test_lines_about_one_image_belong_together() -> None:
    """Two lines about each of a hundred images; another has all of them as wrong ones, and joins nothing."""
    files = [Path(f"{i // 2}.png") for i in range(200)]
    lines = [CaptionLine(i, (file,), ("right", "wrong")) for i, file in enumerate(files)]
    films, right = np.arange(200) // 2, np.arange(200) % 3 > 0
    scores = [
        {"tier 1": np.array([[1.0, 2 * (i % 4 > 1)]]), "tier 2": np.array([[2.0 * r, 1]])} for i, r in enumerate(right)
    ]
    (row,) = rows_of(lines, scores)
    before = np.arange(200) % 4 < 2
    assert row.methods["tier 1"] == accuracy(before, groups=films) != accuracy(before)
    assert row.gains["tier 2"] == accuracy_difference(right, before, groups=films)
    wrong = CaptionLine(200, (A, *files[:90]), ("of a",))
    found = rows_of([*lines, wrong], [*scores, {name: np.zeros((91, 1)) for name in scores[0]}])
    assert {r.score: r for r in found}["text"].methods == row.methods
    paired = [CaptionLine(0, (A, B), ("1", "2")), CaptionLine(1, (B, files[0]), ("2", "3")), lines[0], lines[9]]
    of_all = {r.score: r for r in rows_of(paired, [{"m": np.eye(2)}] * 2 + [{"m": np.array([[1.0, 0]])}] * 2)}
    assert of_all["text"].methods["m"] == accuracy(np.ones(4, dtype=bool), groups=np.array([0, 0, 0, 1]))
