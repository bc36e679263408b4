"""Images of another distribution: what is chosen on clean ones is used as it is, groups, and shape bias."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.data.holding_out import digests
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating import Report, evaluate
from hybridclf.evaluating.shift import Shifted, read_shifted, shape_bias, worst_group
from hybridclf.metrics import accuracy


def test_shape_bias_by_hand() -> None:
    labels, shapes = ["cat", "dog", "cow", "cat", "cat"], ["cat"] * 5
    textures = ["dog", "dog", "dog", "cat", None]
    assert shape_bias(labels, shapes, textures) == accuracy(np.array([True, False, True]))
    assert shape_bias(["cow"], ["cat"], ["dog"]) is None


def test_the_worst_group_by_hand() -> None:
    groups = ["a"] * 10 + ["b"] * 20 + ["c"] * 9 + [None] * 10
    right = np.array([True] * 9 + [False] + [True] * 10 + [False] * 29)
    found = worst_group(right, groups)
    assert found is not None and (found.group, found.n, found.accuracy.value) == ("b", 20, 0.5)
    assert worst_group(right[:9], groups[:9]) is None


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


def test_labels_that_the_classifier_does_not_know(world: Any) -> None:
    with pytest.raises(InvalidInputError, match="label 'gnu' is not in the classes"):
        evaluate(world.clf, world.images, world.labels, trials=4, shifted=[Shifted("x", world.images, ["gnu"] * 120)])


def test_columns_of_a_table(tmp_path: Path, world: Any) -> None:
    """A CSV of ants and bees, which have each other's texture but for one."""
    lines = ["path,label,group,texture"]
    for i, label in enumerate(["ant", "bee"] * 12):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label},{'dark' if i < 12 else ''},{'bee' if label == 'ant' or i == 1 else 'ant'}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    clf = HybridClassifier.__new__(HybridClassifier)
    clf.classes_, clf.image_shape_ = world.clf.classes_, (4, 4, 3)
    found = read_shifted(tmp_path / "data.csv", clf)
    assert found.y.tolist() == ["ant", "bee"] * 12 and found.groups is not None
    assert list(found.groups) == ["dark"] * 12 + [None] * 12
    assert found.textures == ["bee", "bee", *["bee", "ant"] * 11]
    seen = digests(np.stack([np.full((4, 4, 3), (10 * i, 0, 0), np.uint8) for i in (0, 1, 23)]))
    unseen = read_shifted(tmp_path / "data.csv", clf, seen=seen)
    assert (
        unseen.y.tolist() == ["ant", "bee"] * 10 + ["ant"] and list(unseen.groups or ()) == ["dark"] * 10 + [None] * 11
    )
    assert unseen.textures == [*["bee", "ant"] * 10, "bee"]
    assert "3 images in" in unseen.notes[0] and "the model was trained on them" in unseen.notes[0]
    everything = digests(np.stack([np.full((4, 4, 3), (10 * i, 0, 0), np.uint8) for i in range(24)]))
    with pytest.raises(InvalidInputError, match="the model was trained on all of these images"):
        read_shifted(tmp_path / "data.csv", clf, seen=everything)
    (tmp_path / "plain.csv").write_text("\n".join(",".join(line.split(",")[:2]) for line in lines))
    plain = read_shifted(tmp_path / "plain.csv", clf, n_images=12)
    assert plain.groups is None and plain.textures is None and "A sample of 12 of the 24" in plain.notes[0]
