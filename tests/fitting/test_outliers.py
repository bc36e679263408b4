"""Novelty: p-values that are exact on images drawn as the calibration images, and low for others."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError
from hybridclf.fitting.outliers import FEWEST_IMAGES, NoveltyTest, traits_of

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


def test_noise_and_black_are_no_digits_and_digits_are() -> None:
    images, y = load_digits(return_X_y=True)
    images, rng = images.reshape(-1, 8, 8), np.random.default_rng(0)
    _, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    clf = HybridClassifier.from_pretrained("digits").calibrate(images[test[:200]], y[test[:200]])
    others = np.concatenate([rng.uniform(0, 16, (20, 8, 8)), np.zeros((20, 8, 8)), images[test[:20]][:, ::-1] * 0.2])
    assert (clf.novelty(others) < 0.02).all()
    usual = clf.novelty(images[test[200:]])
    assert usual.mean() == pytest.approx(0.5, abs=0.1) and (usual < 0.02).mean() < 0.08


def test_what_was_calibrated_on_no_images_has_no_novelty() -> None:
    clf = HybridClassifier.from_pretrained("digits")
    clf.calibration_ = None
    with pytest.raises(InvalidInputError, match="novelty needs a calibration on images of one size"):
        clf.novelty(np.zeros((1, 8, 8)))
