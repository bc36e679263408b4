"""Images of another distribution: what is chosen on clean ones is used as it is, groups, and shape bias."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating import Report, evaluate
from hybridclf.evaluating.shift import shape_bias, worst_group
from hybridclf.evaluating.shifted import Shifted
from hybridclf.metrics import accuracy


def test_shape_bias_by_hand() -> None:
    labels, shapes = ["cat", "dog", "cow", "cat", "cat"], ["cat"] * 5
    textures = ["dog", "dog", "dog", "cat", None]
    assert shape_bias(labels, shapes, textures) == accuracy(np.array([True, False, True]))
    assert shape_bias(["cow"], ["cat"], ["dog"]) is None
    films = np.array([7, 7, 8, 8, 8])
    assert shape_bias(labels[:2] * 4, ["cat"] * 8, ["dog"] * 8, np.arange(8) // 2) == accuracy(
        np.array([True, False] * 4), groups=np.arange(8) // 2
    )
    assert shape_bias(labels, shapes, textures, films) == accuracy(
        np.array([True, False, True]), groups=films[[0, 1, 4]]
    )


def test_the_worst_group_by_hand() -> None:
    groups = ["a"] * 10 + ["b"] * 20 + ["c"] * 9 + [None] * 10
    right = np.array([True] * 9 + [False] + [True] * 10 + [False] * 29)
    found = worst_group(right, groups)
    assert found is not None and (found.group, found.n, found.accuracy.value) == ("b", 20, 0.5)
    assert worst_group(right[:9], groups[:9]) is None
    backwards = pd.Series(groups, index=range(len(groups))[::-1])
    assert worst_group(right, backwards) == found
    assert found.accuracy == accuracy(right[10:30], 1 - 0.05 / 2)  # the lowest of two groups of enough images
    films = np.arange(49) // 4
    grouped = worst_group(right, groups, films)
    assert grouped is not None and grouped.accuracy == accuracy(right[10:30], 1 - 0.05 / 2, films[10:30])


@pytest.fixture(scope="module")
def report(world: Any) -> Report:
    rng = np.random.default_rng(3)
    noisy = world.images + 0.8 * rng.standard_normal(world.images.shape)
    groups = np.where(np.arange(120) % 2, "odd", "even").tolist()
    textures = np.roll(world.labels, 1).tolist()
    shifted = [Shifted("noisy", noisy, world.labels, groups, textures), Shifted("same", world.images, world.labels)]
    return evaluate(world.clf, world.images, world.labels, trials=8, shifted=shifted)


def test_every_method_on_every_distribution(world: Any, report: Report) -> None:
    hybrid = report.verdict.difference.method
    names = ["tier 1", "tier 2: 8 trials", hybrid]
    expected = [(source, name) for source in ("as given", "noisy", "same") for name in names]
    assert [(row.source, row.method) for row in report.shifts] == expected
    clean, noisy, same = (report.shifts[i : i + 3] for i in (0, 3, 6))
    by_name = {score.method: score for score in report.methods}
    for before, after, again in zip(clean, noisy, same, strict=True):
        assert before.accuracy == by_name[before.method].accuracy
        assert after.accuracy.value < again.accuracy.value and after.n == again.n == 120
        assert after.worst_group is not None and after.worst_group.n == 60
        assert after.worst_group.accuracy.value <= after.accuracy.value
        assert after.shape_bias is not None and again.shape_bias is None and again.worst_group is None
    posterior = world.clf.proposer_.predict(world.images.reshape(120, -1))
    assert same[0].accuracy == accuracy(posterior == world.labels)


def test_nothing_is_fitted_to_shifted_images(world: Any, report: Report) -> None:
    wrong = Shifted("wrong", world.images, np.roll(world.labels, 1))
    again = evaluate(world.clf, world.images, world.labels, trials=8, shifted=[wrong])
    assert again.recommended == report.recommended and again.differences == report.differences


def test_a_report_has_them(report: Report, tmp_path: Path) -> None:
    shown = str(report)
    assert "Under shift" in shown and "worst group" in shown and "shape bias" in shown and "noisy" in shown
    found = report.to_dict()["shifts"]
    assert len(found) == 9 and found[3]["worst_group"]["n"] == 60 and found[0]["shape_bias"] is None
    pytest.importorskip("jinja2")
    assert 'id="shifts"' in report.to_html()


def test_recordings_are_kept_by_their_images(world: Any, tmp_path: Path) -> None:
    """Further images, before those that were asked about, and other labels of these, have folders of their own."""
    X, y = world.images, world.labels
    first, more = Shifted("first", X + 0.1, y), Shifted("more", X - 0.1, y)

    def asked(*shifted: Shifted) -> set[Path]:
        evaluate(world.clf, X, y, trials=2, folder=tmp_path / "recording", shifted=shifted)
        return {path for path in (tmp_path / "recording-shifted").rglob("*") if path.is_file()}

    kept = asked(first)
    times = {path: path.stat().st_mtime_ns for path in kept}
    both = asked(more, first)
    assert len({path.parent for path in both}) == 2 and kept < both
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    chunk = next(path for path in sorted(kept) if path.suffix == ".safetensors")
    chunk.unlink()  # as if it had been interrupted
    assert asked(more, first) == both
    assert len({path.parent for path in asked(Shifted("first", X + 0.1, np.roll(y, 1)))}) == 3


def test_labels_that_the_classifier_does_not_know(world: Any) -> None:
    with pytest.raises(InvalidInputError, match="label 'gnu' is not in the classes"):
        evaluate(world.clf, world.images, world.labels, trials=4, shifted=[Shifted("x", world.images, ["gnu"] * 120)])
