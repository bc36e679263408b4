"""Novelty: p-values that are exact on images drawn as the calibration images, and low for others."""

import json
from collections.abc import Callable
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from hybridclf import HybridClassifier, Race
from hybridclf.batch.answers import classify_files
from hybridclf.errors import InvalidInputError
from hybridclf.fitting.outliers import FEWEST_IMAGES, NoveltyTest, traits_of
from tests.counting import CountingNB

SPAN = (0.0, 1.0)


def drawn(n: int, seed: int) -> np.ndarray:
    """Traits of a skewed distribution, nothing like the normal one."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.standard_normal((n, 5))) @ rng.standard_normal((5, 5))


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_rate_of_false_alarms_is_the_stated_one(rate: float) -> None:
    pool, alarms = drawn(100_000, 0), []
    for seed in range(1000):
        some = pool[np.random.default_rng(seed).integers(0, len(pool), 250)]
        test = NoveltyTest.fit(some[:200], SPAN, seed)
        assert test is not None
        alarms.append((test.p_values(some[200:]) <= rate).mean())
    error = np.std(alarms) / np.sqrt(1000)
    exact = np.floor(rate * 101) / 101  # p-values of 100 scores are multiples of 1/101
    assert abs(np.mean(alarms) - exact) < 4 * error


def test_frames_of_new_films_are_not_novel() -> None:
    """Of a film, one frame is scored, in the half that does not say what is usual."""
    rng, rates = np.random.default_rng(0), []
    for seed in range(200):
        films = np.repeat(rng.standard_normal((100, 1, 5)), 5, axis=1) + 0.1 * rng.standard_normal((100, 5, 5))
        units = np.repeat(np.arange(80), 5)
        test = NoveltyTest.fit(films[:80].reshape(-1, 5), SPAN, seed, units)
        assert test is not None and len(test.scores) == 40
        rates.append((test.p_values(films[80:, 0]) <= 0.1).mean())
    assert np.mean(rates) == pytest.approx(4 / 41, abs=4 * np.std(rates) / np.sqrt(200))
    few = np.repeat(np.arange(FEWEST_IMAGES - 1), 5)
    assert NoveltyTest.fit(drawn(len(few), 0), SPAN, 0, few) is None


def test_what_is_far_away_or_not_finite_has_the_lowest_p_value() -> None:
    test = NoveltyTest.fit(drawn(200, 0), SPAN, 0)
    assert test is not None
    far, broken = np.full((1, 5), 1e4), np.full((1, 5), np.inf)
    np.testing.assert_allclose(test.p_values(np.concatenate([far, broken])), 1 / 101)
    assert test.p_values(np.array([test.mean])) == 1.0


def test_few_images_make_no_test_and_json_keeps_one() -> None:
    assert NoveltyTest.fit(drawn(FEWEST_IMAGES - 1, 0), SPAN, 0) is None
    test = NoveltyTest.fit(drawn(FEWEST_IMAGES, 0), SPAN, 0)
    assert test is not None and NoveltyTest(**json.loads(json.dumps(asdict(test)))) == test


def test_traits_of_errors_that_vanish_are_finite() -> None:
    assert np.isfinite(traits_of(np.zeros((2, 4)), np.array([0.0, 3.0]))).all()


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits that the embedded pair was not trained on."""
    images, y = load_digits(return_X_y=True)
    _, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    return images.reshape(-1, 8, 8)[test], y[test]


@pytest.fixture(scope="module")
def calibrated(digits: tuple[np.ndarray, np.ndarray]) -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits").calibrate(digits[0][:200], digits[1][:200])


@pytest.fixture
def clf(calibrated: HybridClassifier) -> HybridClassifier:
    return copy(calibrated)  # whose parameters a test may set


@pytest.fixture(scope="module")
def others(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 16, (20, 8, 8))
    return np.concatenate([noise, np.zeros((20, 8, 8)), digits[0][:20, ::-1] * 0.2])


def test_noise_and_black_are_no_digits_and_digits_are(
    clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray], others: np.ndarray
) -> None:
    assert (clf.novelty(others) < 0.02).all()
    usual = clf.novelty(digits[0][200:])
    assert usual.mean() == pytest.approx(0.5, abs=0.1) and (usual < 0.02).mean() < 0.08


def test_tier_1_is_asked_once_also_to_choose_among_many_classes(gaussian_denoiser: Callable[..., Any]) -> None:
    rng, y = np.random.default_rng(0), np.arange(144) % 24
    means = rng.uniform(size=(24, 4, 4, 1))
    images = means[y] + 0.3 * rng.standard_normal((144, 4, 4, 1))
    tier_1 = CountingNB(var_smoothing=1.0).fit(images.reshape(144, -1), y)
    denoiser = gaussian_denoiser(dict(enumerate(means)), s=0.3)
    clf = HybridClassifier(FrozenEstimator(tier_1), denoiser, allocation=Race(max_trials=2), random_state=0)
    clf.fit(images, y).set_params(reject=0.1)
    expected = clf.novelty(images[:9])
    tier_1.asked.clear()
    results = clf.decide(images[:9])[1]
    assert tier_1.asked == [9]
    np.testing.assert_array_equal([result.novelty for result in results], expected)


# --- reject -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_as_many_digits_are_rejected_as_stated(
    clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray], rate: float
) -> None:
    """Over random splits of one pool, the mean share is at most the rate, within the error of so many splits."""
    traits, _ = clf._traits(clf._read(digits[0]), (0.0, 16.0))
    shares = []
    for seed in range(1000):
        shuffled = np.random.default_rng(seed).permutation(traits)
        test = NoveltyTest.fit(shuffled[:200], (0.0, 16.0), seed)
        assert test is not None
        shares.append((test.p_values(shuffled[200:]) <= rate).mean())
    exact = np.floor(rate * 101) / 101
    assert abs(np.mean(shares) - exact) < 4 * np.std(shares) / np.sqrt(1000)


@pytest.mark.slow
def test_as_many_digits_are_rejected_as_stated_by_calibrations_of_their_own(
    clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, y = digits
    shares = []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(len(y))
        here, there = order[:200], order[200:]
        answers = clf.calibrate(images[here], y[here]).set_params(reject=0.05).rerank(images[there])
        shares.append(np.mean([answer.rejected for answer in answers]))
    assert abs(np.mean(shares) - 5 / 101) < 4 * np.std(shares) / np.sqrt(40)


def test_what_is_rejected_is_none_of_the_classes_and_keeps_its_posterior(
    clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray], others: np.ndarray
) -> None:
    images = np.concatenate([others, digits[0][200:260]])
    before, plain = clf.predict_proba(images), clf.rerank(images)
    assert {(r.novelty, r.rejected) for r in plain} == {(None, False)}
    clf.set_params(reject=0.02)
    results, p = clf.rerank(images), clf.novelty(images)
    np.testing.assert_array_equal([r.rejected for r in results], p <= 0.02)
    np.testing.assert_array_equal([r.novelty for r in results], p)
    assert {r.label for r in results[: len(others)]} == {None}
    assert all(r.label == r.ranking[0] for r in results if not r.rejected)
    assert [r.evaluations for r in results] == [r.evaluations + 10 for r in plain]  # a trial of ten classes
    np.testing.assert_array_equal(clf.predict_proba(images), before)
    usual = p > 0.02
    for label in (None, -1):
        predicted = clf.set_params(novel_label=label).predict(images)
        np.testing.assert_array_equal(predicted[usual], before.argmax(axis=1)[usual])
        assert {*predicted[~usual].tolist()} == {label}
    assert predicted.dtype.kind == "i"
    y = np.where(usual, before.argmax(axis=1), -1)
    y[0] = 3
    assert clf.score(images, y) == (predicted == y).mean() < 1


def test_few_scores_cannot_tell_a_fine_rate(clf: HybridClassifier) -> None:
    assert clf.set_params(reject=1 / 101).predict(np.zeros((1, 8, 8))).tolist() == [None]
    with pytest.raises(InvalidInputError, match=r"reject=0.001 is finer than 100 scores .* at least 1,998 images"):
        clf.set_params(reject=0.001).predict(np.zeros((1, 8, 8)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reject": 0}, "reject must be a finite number above 0 and below 1"),
        ({"reject": 1.0}, "reject must be a finite number above 0 and below 1"),
        ({"reject": True}, "reject must be a finite number"),
        ({"novel_label": ["x"]}, "novel_label must be a text, a number or None"),
        ({"reject": 0.05, "novel_label": "none"}, "novel_label is 'none' and the classes are int64"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, clf: HybridClassifier) -> None:
    with pytest.raises(InvalidInputError, match=message):
        clf.set_params(**settings).predict(np.zeros((1, 8, 8)))


def test_reject_is_saved(clf: HybridClassifier, others: np.ndarray, tmp_path: Path) -> None:
    clf.set_params(reject=0.02, novel_label=-1).save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert (loaded.reject, loaded.novel_label) == (0.02, -1)
    assert set(loaded.predict(others)) == {-1}


def test_files_get_the_novel_label(clf: HybridClassifier, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    (answer,) = classify_files(clf.set_params(reject=0.02, novel_label=-1), [tmp_path / "black.png"])
    assert answer.label == -1 and answer.posterior[0].label in range(10)


def test_what_was_calibrated_on_no_images_has_no_novelty() -> None:
    clf = HybridClassifier.from_pretrained("digits")
    clf.calibration_ = None
    ask: list[Callable[[Any], Any]] = [clf.novelty, clf.set_params(reject=0.05).predict, clf.rerank]
    for method in ask:
        with pytest.raises(InvalidInputError, match="novelty needs a calibration on at least 60 images of one size"):
            method(np.zeros((1, 8, 8)))
    assert clf.predict_proba(np.zeros((1, 8, 8))).shape == (1, 10)
