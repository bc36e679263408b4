"""Drift: tier 1 is believed less where images look unlike those it was calibrated on, and nowhere else."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hybridclf import HybridClassifier
from hybridclf.fitting.corruptions import CORRUPTIONS
from hybridclf.fitting.drift import FEWEST, USUAL, Drift, DriftSample, looks_of

SPAN = (0.0, 1.0)


def make_sample(exponent: float, n: int = 4000) -> DriftSample:
    """Tier 1 is over-sure by a power of one look, which is one to four times its usual size on the copies."""
    rng = np.random.default_rng(0)
    clean, beyond = rng.standard_normal((n, 5)), rng.uniform(1, 4, n)
    usual = np.quantile(np.abs(clean - clean.mean(axis=0)) / clean.std(axis=0), USUAL, axis=0)
    copies = np.tile(clean.mean(axis=0), (n, 1))
    copies[:, 3] += rng.choice([-1, 1], n) * beyond * usual[3] * clean[:, 3].std()
    true = log_softmax(2 * rng.standard_normal((n, 3)), axis=1)
    y = (softmax(true, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=2)
    return DriftSample(clean, copies, true * beyond[:, None] ** exponent, y, np.arange(n), SPAN)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.5])
def test_the_exponent_is_that_by_which_tier_1_is_over_sure(exponent: float) -> None:
    fitted = Drift.fit(make_sample(exponent), 1.0)
    assert fitted is not None
    assert fitted.exponents[3] == pytest.approx(exponent, abs=0.1)


def test_a_prior_stays_at_usual_looks_and_is_divided_beyond() -> None:
    drift = Drift(SPAN, (0,) * 5, (1, 1, 1, 1, 2), (2,) * 5, (1, 0, 0, 0.5, 1))
    looks = np.array([[0, 0, 0, 0, 0], [2, -9, 0, 0, 4], [-4, 0, 0, 8, 0], [0, 0, 0, 0, 12]])
    log_prior = log_softmax(np.tile([0.0, -1.2], (4, 1)), axis=1)
    divided = drift.flattened(log_prior, looks)
    np.testing.assert_array_equal(divided[:2], log_prior[:2])
    np.testing.assert_allclose(divided[:, 1] - divided[:, 0], [-1.2, -1.2, -1.2 / 2 / 2, -1.2 / 3])
    np.testing.assert_allclose(np.exp(divided).sum(axis=1), 1.0)


def test_the_share_of_clean_images_that_a_look_changes_something_for_is_the_stated_one() -> None:
    sample = make_sample(1.0)
    drift = Drift.fit(sample, 1.0)
    assert drift is not None
    np.testing.assert_allclose((drift.log_sizes(sample.clean) == 0).mean(axis=0), USUAL, atol=0.001)


def test_few_images_tell_nothing() -> None:
    sample = make_sample(1.0)
    few = replace(sample, clean=sample.clean[: FEWEST - 1])
    assert Drift.fit(few, 1.0) is None


def test_images_of_one_look_have_a_drift_too() -> None:
    flat = np.full((40, 4, 4, 1), 0.5)
    sample = DriftSample.record(lambda x: np.log(np.full((len(x), 2), 0.5)), flat, np.zeros(40, int), SPAN, 0)
    drift = Drift.fit(sample, 1.0)
    assert drift is not None and np.isfinite(drift(np.full((40, 2), -1.0), flat)).all()


def test_a_sample_asks_about_a_copy_of_every_image_under_every_corruption() -> None:
    images, asked = np.random.default_rng(0).random((50, 6, 6, 3)), []

    def log_proba(copies: np.ndarray) -> np.ndarray:
        asked.append(copies)
        return np.zeros((len(copies), 2))

    sample = DriftSample.record(log_proba, images, np.arange(50) % 2, SPAN, 0)
    assert len(asked) == len(CORRUPTIONS) and len(sample.y) == 50 * len(CORRUPTIONS)
    np.testing.assert_array_equal(sample.corrupted, looks_of(np.concatenate(asked), *SPAN))
    joined = DriftSample.join([sample, sample])
    assert len(joined.clean) == 100 and len(joined.log_prior) == 2 * len(sample.log_prior)


def test_images_are_selected_with_their_copies() -> None:
    images = np.random.default_rng(0).random((12, 6, 6, 1))
    parts = [
        DriftSample.record(lambda x: x.mean(axis=(1, 2)) * [1, 2], half, np.arange(6) + first, SPAN, 0)
        for half, first in ((images[:6], 0), (images[6:], 6))
    ]
    chosen = np.isin(np.arange(12), [1, 4, 7])
    some = DriftSample.join(parts).select(chosen)
    np.testing.assert_array_equal(some.clean, looks_of(images[chosen], *SPAN))
    assert len(some.y) == len(some.corrupted) == len(some.log_prior) == 3 * len(CORRUPTIONS)
    np.testing.assert_array_equal(np.array([1, 4, 7])[some.of], some.y)  # a class for every image
    whole = DriftSample.join(parts)
    np.testing.assert_array_equal(some.corrupted, whole.corrupted[np.isin(whole.y, [1, 4, 7])])


def test_it_survives_json() -> None:
    drift = Drift.fit(make_sample(0.7), 1.0)
    assert drift is not None and Drift(**json.loads(json.dumps(asdict(drift)))) == drift


def test_noisy_digits_go_to_tier_2_and_clean_ones_as_before() -> None:
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    _, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    clf, without = (HybridClassifier.from_pretrained("digits") for _ in range(2))
    assert without.calibration_ is not None
    without.calibration_ = replace(without.calibration_, drift=None)
    noisy = (images[test] + 4 * np.random.default_rng(0).standard_normal(images[test].shape)).clip(0, 16)
    assert clf.score(noisy, y[test]) > without.score(noisy, y[test]) + 0.04
    evaluations = [sum(r.evaluations for r in c.rerank(images[test])) for c in (clf, without)]
    assert evaluations[0] < 1.2 * evaluations[1]
    assert abs(clf.score(images[test], y[test]) - without.score(images[test], y[test])) < 0.005
