"""`zero_shot` against the classifier behind it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import hybridclf
from hybridclf import HybridClassifier, PairedTTest, zeroshot
from hybridclf.errors import InvalidInputError, SavedModelError
from hybridclf.pretrained import catalog
from tests.adapters.tiny_pair import specs_of

LABELS = ["hen", "fox", "cat"]


@pytest.fixture(scope="module")
def folder(text_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of text."""
    folder = tmp_path_factory.mktemp("zero-shot") / "model"
    allocation = PairedTTest(min_trials=2, max_trials=2)
    clf = HybridClassifier(*specs_of(text_pair), allocation=allocation, prompts="a {}, a pet.", random_state=0)
    clf.fit(None, ["cat", "dog"]).save(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    zeroshot._load.cache_clear()
    yield
    zeroshot._load.cache_clear()


def expected(folder: Path, images: list[Any], **options: Any) -> list[list[dict[str, Any]]]:
    posterior = HybridClassifier.load(folder, **options).with_labels(LABELS).predict_proba(images)
    answers = [[{"score": p, "label": c} for p, c in zip(row, LABELS, strict=True)] for row in posterior.tolist()]
    return [sorted(answer, key=lambda entry: entry["score"], reverse=True) for answer in answers]


def assert_close(answer: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """The same labels in order; scores but for rounding, as batches differ."""
    assert [entry["label"] for entry in answer] == [entry["label"] for entry in wanted]
    assert [entry["score"] for entry in answer] == pytest.approx([entry["score"] for entry in wanted], rel=1e-4)


def test_images_of_several_sizes_are_fitted_on(text_pair: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)) for i in range(6)]
    clf = HybridClassifier(*specs_of(text_pair), allocation=PairedTTest(min_trials=2, max_trials=2), random_state=0)
    assert clf.fit(images, ["cat", "dog"] * 3).predict_proba(images).shape == (6, 2)


def test_an_answer_per_image_best_label_first(
    folder: Path, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(folder, pictures[:3])
    answers = hybridclf.zero_shot(pictures[:3], candidate_labels=LABELS, model=folder)
    assert answers == wanted
    for answer in answers:
        assert [*answer[0]] == ["score", "label"] and type(answer[0]["score"]) is float
        assert {entry["label"] for entry in answer} == set(LABELS)
        assert sum(entry["score"] for entry in answer) == pytest.approx(1)

    path = tmp_path / "one.png"
    pictures[0].save(path)
    for image in (pictures[0], path, str(path), np.asarray(pictures[0])):
        assert_close(hybridclf.zero_shot(image, LABELS, model=folder), wanted[0])
    for answer, other in zip(hybridclf.zero_shot((path, pictures[1]), LABELS, model=str(folder)), wanted, strict=False):
        assert_close(answer, other)
    (answer,) = hybridclf.zero_shot([path], LABELS, model=folder)
    assert_close(answer, wanted[0])
    assert hybridclf.zero_shot([], LABELS, model=folder) == []


def test_the_template_makes_the_prompts(folder: Path, pictures: list[Image.Image]) -> None:
    answer = hybridclf.zero_shot(pictures[0], LABELS, hypothesis_template="the {}", model=folder)
    assert [answer] == expected(folder, pictures[:1], prompts="the {}") != expected(folder, pictures[:1])


def test_the_model_is_loaded_once_until_it_is_saved_again(
    text_pair: Path, folder: Path, pictures: list[Image.Image], tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "model"))
    for labels in (LABELS, LABELS[:2]):
        hybridclf.zero_shot(pictures[0], labels, model=mine)
    assert zeroshot._load.cache_info().misses == 1
    clf = HybridClassifier(*specs_of(text_pair), allocation=PairedTTest(min_trials=2, max_trials=2), prompts="the {}")
    clf.set_params(random_state=0).fit(None, ["cat", "dog"]).save(mine)
    answer = hybridclf.zero_shot(pictures[0], LABELS, model=mine)
    assert [answer] == expected(folder, pictures[:1], prompts="the {}")


def test_an_embedded_model_by_its_name(
    text_pair: Path, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair that lies in its own folder, as an embedded one does."""
    embedded = Path(shutil.copytree(text_pair, tmp_path / "mine"))
    allocation = PairedTTest(min_trials=2, max_trials=2)
    HybridClassifier(*specs_of(embedded), allocation=allocation, random_state=0).fit(None, ["a", "b"]).save(embedded)
    monkeypatch.setattr(catalog, "_PRETRAINED", tmp_path)
    assert [hybridclf.zero_shot(pictures[0], LABELS, model="mine")] == expected(embedded, pictures[:1])


def test_a_model_of_classes_answers_for_those_it_knows(tmp_path: Path) -> None:
    digits = load_digits()
    Image.fromarray((digits.images[3] * 255 / 16).round().astype(np.uint8)).save(tmp_path / "3.png")
    for image in (tmp_path / "3.png", Image.open(tmp_path / "3.png"), digits.images[3][..., None]):
        best, *others = hybridclf.zero_shot(image, [8, 3, 1], model="digits")
        assert best["label"] == 3 and len(others) == 2
    with pytest.raises(InvalidInputError, match="label 'three' is not in the proposer's classes"):
        hybridclf.zero_shot(tmp_path / "3.png", ["three", "eight"], model="digits")
    with pytest.raises(InvalidInputError, match="neither tier reads prompts"):
        hybridclf.zero_shot(tmp_path / "3.png", [3, 8], "a {}", model="digits")


def test_what_cannot_be_answered(folder: Path, pictures: list[Image.Image], tmp_path: Path) -> None:
    image = pictures[0]
    wrong: list[tuple[str, Any]] = [
        ("at least two different names", lambda: hybridclf.zero_shot(image, ["cat"], model=folder)),
        ("at least two different names", lambda: hybridclf.zero_shot(image, "cat", model=folder)),
        ("'cat' and 'Cat' read the same", lambda: hybridclf.zero_shot(image, ["cat", "Cat"], model=folder)),
        ("prompts must be a template", lambda: hybridclf.zero_shot(image, LABELS, "a photo", model=folder)),
        ("no embedded model 'no-such'", lambda: hybridclf.zero_shot(image, LABELS, model="no-such")),
        ("gone.png: cannot be read", lambda: hybridclf.zero_shot("gone.png", LABELS, model=folder)),
        ("an image must be a PIL image", lambda: hybridclf.zero_shot(3, LABELS, model=folder)),
        ("an image must be a PIL image", lambda: hybridclf.zero_shot(np.zeros((8, 8)), LABELS, model=folder)),
    ]
    for message, call in wrong:
        with pytest.raises(InvalidInputError, match=message):
            call()
    with pytest.raises(SavedModelError, match="is not a saved model"):
        hybridclf.zero_shot(image, LABELS, model=tmp_path)
