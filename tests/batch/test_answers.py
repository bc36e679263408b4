"""Answers for image files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.batch.answers import BATCH, FileAnswer, answer_images, classify_files, errors_of_missing
from hybridclf.errors import InvalidInputError
from tests.adapters.tiny_pair import specs_of


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    digits = load_digits()
    return HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(digits.images[:120], digits.target[:120])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits 200 to 219 of the data set as PNG files, and one that is no image among them."""
    for i, digit in enumerate(load_digits().images[200:220]):
        Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "05b.png").write_text("no image")
    return tmp_path


def test_answers_are_those_for_the_same_array(clf: HybridClassifier, folder: Path) -> None:
    pixels = (load_digits().images[200:220] * 255 / 16).round() * 16 / 255
    posterior, results = clf.decide(pixels)
    answers = [a for a in classify_files(clf, [folder]) if a.error is None]
    assert len(answers) == 20
    for answer, row, result in zip(answers, posterior, results, strict=True):
        order = np.argsort(-row)[:3]
        assert answer.label == clf.classes_[order[0]]
        assert [share.label for share in answer.posterior] == clf.classes_[order].tolist()
        np.testing.assert_allclose([share.probability for share in answer.posterior], row[order], atol=1e-7)
        assert answer.probability == answer.posterior[0].probability
        assert (answer.evaluations, answer.rows) == (result.evaluations, result.rows)
        assert answer.stopped_by == result.stopped_by


def test_unreadable_files_keep_their_place(clf: HybridClassifier, folder: Path) -> None:
    answers = list(classify_files(clf, [folder, "missing.png", folder / "00.png"]))
    assert len(answers) == 23
    assert [i for i, answer in enumerate(answers) if answer.error] == [6, 21]
    broken = answers[6]
    assert broken == FileAnswer(str(folder / "05b.png"), error=broken.error)
    again, first = answers[22], answers[0]
    assert (again.path, again.label, again.evaluations) == (first.path, first.label, first.evaluations)
    assert again.probability == pytest.approx(first.probability)


def test_only_unreadable_files(clf: HybridClassifier) -> None:
    (answer,) = classify_files(clf, ["missing.png"])
    assert answer.error == "cannot be read: No such file or directory"
    assert errors_of_missing([Path("missing.png")]) == [answer]


def test_a_name_that_is_too_long_costs_only_itself(clf: HybridClassifier, folder: Path) -> None:
    name = 300 * "a" + ".png"
    first, second = classify_files(clf, [name, folder / "00.png"])
    assert first.error == "cannot be read: File name too long" and second.error is None
    assert errors_of_missing([Path(name)]) == [first]
    assert errors_of_missing([Path(name), folder / "00.png"]) == []


def test_answers_come_batch_by_batch(clf: HybridClassifier, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_one = list(classify_files(clf, [folder]))
    assert len(in_one) < BATCH
    monkeypatch.setattr("hybridclf.batch.answers.BATCH", 4)
    answers = classify_files(clf, [folder, "missing.png"])
    first = next(answers)
    for path in folder.iterdir():
        path.unlink()
    rest = list(answers)
    assert first.error is None
    assert [a.error is None for a in rest[:4]] == [True, True, True, False]


def test_labels_are_plain_and_as_many_as_asked(clf: HybridClassifier, folder: Path) -> None:
    answer = next(classify_files(clf, [folder], top=2))
    assert type(answer.label) is int
    assert len(answer.posterior) == 2


def test_large_images_are_averaged_down_before_they_are_held(text_pair: Path, tmp_path: Path) -> None:
    Image.new("RGB", (400, 600)).save(tmp_path / "a.png")
    clf = HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(1)).fit(None, ["cat", "dog"])
    side, sizes, decide = clf._least_side, [], clf.decide
    assert side is not None and 2 * side < 400 and clf.image_shape_ is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clf, "decide", lambda items: sizes.append(items[0].size) or decide(items))
        (answer,) = answer_images(clf, ["a.png"], [Image.open(tmp_path / "a.png")], 1)
    assert answer.error is None and side <= min(sizes[0]) < 400 and sizes[0][1] * 2 == sizes[0][0] * 3


def test_a_classifier_of_vectors_is_refused(folder: Path) -> None:
    digits = load_digits()
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(digits.data[:60], digits.target[:60])
    with pytest.raises(InvalidInputError, match="the model takes vectors of 64 numbers"):
        next(classify_files(clf, [folder]))
