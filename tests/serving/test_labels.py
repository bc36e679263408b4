"""What a request's labels mean: a fixed set of classes, or any text."""

import asyncio
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier, InvalidInputError, PairedTTest, UnknownLabelError
from hybridclf.serving import Limits
from hybridclf.serving.labels import RequestLabels
from hybridclf.serving.questions import Question
from hybridclf.serving.service import Service
from tests.adapters.tiny_pair import specs_of

LABELS = ["cat", "dog", "red ball"]


@pytest.fixture(scope="module")
def zero_shot(text_pair: Path) -> HybridClassifier:
    """A tiny CLIP and a tiny Stable Diffusion with random weights."""
    allocation = PairedTTest(min_trials=2, max_trials=3)
    return HybridClassifier(*specs_of(text_pair), allocation=allocation, random_state=0).fit(None, LABELS)


@pytest.fixture(scope="module")
def digits() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8))


def test_texts_name_the_classes_of_a_model_that_knows_no_others(digits: HybridClassifier) -> None:
    labels = RequestLabels(digits)
    assert labels.resolve(["7", "1"]) == (7, 1)
    with pytest.raises(UnknownLabelError, match="does not know the label 'seven'; it knows 0, 1, 2"):
        labels.resolve(["1", "seven"])
    pixels = load_digits().images[0][..., None]
    expected = digits.proposer_.predict_log_proba(pixels.reshape(1, -1))[0]
    np.testing.assert_allclose(labels.log_prior((7, 1), pixels), np.maximum(expected[[7, 1]], -30), rtol=1e-5)


def test_photographs_of_fixed_classes_are_asked_about_these_alone() -> None:
    labels = RequestLabels(HybridClassifier.from_pretrained("cifar10"))
    assert labels.resolve(["cat", "dog"]) == ("cat", "dog")
    with pytest.raises(UnknownLabelError, match="does not know the label 'yak'; it knows airplane"):
        labels.resolve(["cat", "yak"])


def test_many_classes_are_listed_in_part(digits: HybridClassifier) -> None:
    many = HybridClassifier()
    many.classes_ = np.array([f"class {i}" for i in range(1000)])
    many.proposer_, many.denoiser_ = digits.proposer_, digits.denoiser_
    with pytest.raises(UnknownLabelError, match=r"class 0, class 1, .*class 19 and 980 more$") as error:
        RequestLabels(many).resolve(["x" * 10_000])
    assert len(str(error.value)) < 500


def test_a_model_that_reads_text_takes_any_label(zero_shot: HybridClassifier, image: Image.Image) -> None:
    labels = RequestLabels(zero_shot)
    wanted = labels.resolve(["zebra", "cat", "a lake"])
    assert wanted == ("zebra", "cat", "a lake")
    parameters = zero_shot.get_params(deep=False)
    fresh = HybridClassifier(**parameters).fit(None, list(wanted))
    for _ in range(2):
        found = labels.log_prior(wanted, image)
        np.testing.assert_allclose(found, fresh.proposer_.predict_log_proba([image])[0], atol=1e-5)
    known = labels.log_prior(("dog", "cat"), image)
    np.testing.assert_allclose(known, zero_shot.proposer_.predict_log_proba([image])[0, [1, 0]], atol=1e-5)
    assert zero_shot.classes_.tolist() == zero_shot.proposer_.classes_.tolist() == LABELS


@pytest.fixture
def service(zero_shot: HybridClassifier) -> Iterator[Service]:
    service = Service(zero_shot, Limits(queue=4))
    yield service
    service.close()


def test_a_request_with_labels_of_its_own_is_the_zero_shot_classifier(
    service: Service, zero_shot: HybridClassifier, image: Image.Image
) -> None:
    file = BytesIO()
    image.save(file, "png")
    lists = [("zebra", "lake", "cat"), ("cat", "dog", "red ball"), ("lake", "hill")]
    questions = [Question(file.getvalue(), labels) for labels in lists]
    answers = asyncio.run(service.answer_all(questions))
    for labels, answer in zip(lists, answers, strict=True):
        fresh = HybridClassifier(**zero_shot.get_params(deep=False)).fit(None, list(labels))
        posterior, (result,) = fresh.decide([image])
        np.testing.assert_allclose(answer.posterior, posterior[0], atol=1e-4)
        assert (answer.evaluations, answer.stopped_by) == (result.evaluations, result.stopped_by)


def test_warming_up_asks_a_denoiser_of_several_prompts(text_pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["a photo of a {}", "a drawing of a {}", "{}"]
    clf = HybridClassifier(*specs_of(text_pair), prompts=prompts, allocation=PairedTTest(0.01, 2, 3), random_state=0)
    clf.fit(None, LABELS)
    predict, rows = clf.denoiser_.predict, list[int]()
    monkeypatch.setattr(clf.denoiser_, "predict", lambda x_t, *rest: rows.append(len(x_t)) or predict(x_t, *rest))
    service = Service(clf, Limits())
    service.warm_up()
    service.close()
    assert len(rows) >= 1


def test_labels_that_read_the_same_are_refused(service: Service, image: Image.Image) -> None:
    file = BytesIO()
    image.save(file, "png")
    with pytest.raises(InvalidInputError, match="read the same"):
        asyncio.run(service.answer(Question(file.getvalue(), ("Zebra", "zebra"))))


def test_a_classifier_of_vectors_is_not_served() -> None:
    data = load_digits()
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(data.data[:120], data.target[:120])
    with pytest.raises(InvalidInputError, match="vectors of 64 numbers"):
        Service(clf, Limits())
