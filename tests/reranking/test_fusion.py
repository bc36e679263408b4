"""Fusion: shares against scalar lines, parameters against data made with known ones."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from hybridclf.errors import InvalidInputError
from hybridclf.reranking.fusion import Fusion

FITTED = Fusion(prior_alone=0.8, prior_weight=0.6, error_weight=0.7, correlation=0.25, calibrated=True)


def by_hand(fusion: Fusion, log_prior: list[float], sums: list[float], n: int) -> list[float]:
    """The posterior of one image, in scalars."""
    if n == 0:
        scores = [fusion.prior_alone * p for p in log_prior]
    else:
        beta = fusion.error_weight / (1 + fusion.correlation * (n - 1))
        scores = [fusion.prior_weight * p - beta * e for p, e in zip(log_prior, sums, strict=True)]
    weights = [math.exp(s - max(scores)) for s in scores]
    return [w / sum(weights) for w in weights]


def random_case(m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    n_trials = rng.integers(0, 9, m)
    sums = rng.normal(loc=5, size=(m, k)) * n_trials[:, None]
    return log_softmax(2 * rng.normal(size=(m, k)), axis=1), sums, n_trials


@pytest.mark.parametrize("fusion", [Fusion(), FITTED])
def test_posterior_equals_the_formula(fusion: Fusion) -> None:
    log_prior, sums, n_trials = random_case(40, 7)
    posterior = fusion.posterior(log_prior, sums, n_trials)
    for p, prior, e, n in zip(posterior, log_prior, sums, n_trials, strict=True):
        np.testing.assert_allclose(p, by_hand(fusion, prior.tolist(), e.tolist(), int(n)))
    np.testing.assert_allclose(posterior.sum(axis=1), 1)


def test_absent_candidates_have_no_share() -> None:
    log_prior, sums, n_trials = random_case(20, 5)
    padded = FITTED.posterior(
        np.pad(log_prior, ((0, 0), (0, 12)), constant_values=-np.inf), np.pad(sums, ((0, 0), (0, 12))), n_trials
    )
    np.testing.assert_allclose(padded[:, :5], FITTED.posterior(log_prior, sums, n_trials), rtol=1e-14)
    assert (padded[:, 5:] == 0).all()


def test_dropped_classes_keep_their_share_and_the_rest_share_what_is_left() -> None:
    log_prior, sums, n_trials = random_case(50, 6)
    rng = np.random.default_rng(0)
    alive = rng.random((50, 6)) < 0.6
    alive[:, 2] = True
    frozen = np.where(alive, rng.random((50, 6)), rng.dirichlet(np.ones(8), 50)[:, :6])  # of the living: never read
    posterior = FITTED.posterior(log_prior, sums, n_trials, alive, frozen)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    np.testing.assert_array_equal(posterior[~alive], frozen[~alive])
    for p, prior, e, n, living in zip(posterior, log_prior, sums, n_trials, alive, strict=True):
        among = by_hand(FITTED, prior[living].tolist(), e[living].tolist(), int(n))
        np.testing.assert_allclose(p[living], np.array(among) * (1 - p[~living].sum()))


def test_errors_of_any_size_are_safe() -> None:
    sums = np.array([[1e8, 1e8 + 1, 2e8], [-1e8, 0.0, 1e8]])
    posterior = Fusion(error_weight=0.5, correlation=0.0).posterior(np.zeros((2, 3)), sums, np.array([1, 1]))
    np.testing.assert_allclose(posterior, [[*softmax([0.5, 0.0]), 0], [1, 0, 0]], atol=1e-12)


def test_unfitted_evidence_alone_decides() -> None:
    log_prior, sums, n_trials = random_case(30, 4)
    n_trials = np.maximum(n_trials, 1)
    unfitted = Fusion()
    posterior = unfitted.posterior(log_prior, sums, n_trials)
    np.testing.assert_allclose(posterior, softmax(-sums / n_trials[:, None] / 2, axis=1))
    np.testing.assert_array_equal(posterior, unfitted.posterior(-log_prior, sums, n_trials))
    before_the_first_trial = unfitted.posterior(log_prior, np.zeros_like(sums), np.zeros(30, dtype=int))
    np.testing.assert_allclose(before_the_first_trial, np.exp(log_prior))
    assert not unfitted.calibrated


def test_prior_at_its_fitted_temperature() -> None:
    log_prior = random_case(10, 5)[0]
    np.testing.assert_allclose(FITTED.prior(log_prior), softmax(0.8 * log_prior, axis=1))
    np.testing.assert_allclose(Fusion().prior(log_prior), np.exp(log_prior))


def test_sharpened_multiplies_what_rests_on_evidence() -> None:
    log_prior, sums, n_trials = random_case(20, 5)
    sharp = FITTED.sharpened(1.7)
    factor = np.where(n_trials > 0, 1.7, 1.0)[:, None]
    expected = factor * FITTED.scores(log_prior, sums, n_trials)
    np.testing.assert_allclose(sharp.scores(log_prior, sums, n_trials), expected)
    assert sharp.calibrated


def synthetic(fusion: Fusion, n: int, n_trials: int, k: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(log prior, errors, y) of images for which that fusion is the exact posterior.

    Errors are Gaussian with variance s² and, under wrong classes, mean μ; trials correlate with ρ. Then the log-odds
    of n trials are -(sum of errors)·(μ/s²)/(1 + ρ(n - 1)), so error_weight = μ/s² and correlation = ρ.
    """
    rng = np.random.default_rng(seed)
    log_prior = log_softmax(1.5 * rng.normal(size=(n, k)), axis=1)
    probabilities = softmax(fusion.prior_weight * log_prior, axis=1)
    y = (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    s, rho = 0.8, fusion.correlation
    common = math.sqrt(rho) * rng.standard_normal((n, 1, k)) + math.sqrt(1 - rho) * rng.standard_normal(
        (n, n_trials, k)
    )
    errors = 20 + s * common + fusion.error_weight * s**2
    errors[np.arange(n), :, y] -= fusion.error_weight * s**2
    return log_prior, errors, y


@pytest.mark.parametrize(("rho", "k"), [(0.0, 4), (0.3, 4), (0.3, 2)])
def test_fit_finds_the_parameters_behind_the_data(rho: float, k: int) -> None:
    truth = Fusion(prior_alone=0.7, prior_weight=0.7, error_weight=1.5, correlation=rho)
    fitted = Fusion.fit(*synthetic(truth, n=6000, n_trials=16, k=k))
    assert fitted.calibrated
    assert fitted.prior_alone == pytest.approx(0.7, rel=0.1)
    assert fitted.prior_weight == pytest.approx(0.7, rel=0.1)
    assert fitted.error_weight == pytest.approx(1.5, rel=0.1)
    assert fitted.correlation == pytest.approx(rho, abs=0.05)


def test_tempered_maximises_the_likelihood_of_the_prior_alone() -> None:
    truth = Fusion(prior_alone=0.7, prior_weight=0.7, error_weight=1.5, correlation=0.3)
    log_prior, errors, y = synthetic(truth, n=2000, n_trials=1, k=4)
    tempered = FITTED.tempered(log_prior, y)
    assert replace(tempered, prior_alone=FITTED.prior_alone) == FITTED
    grid = np.exp(np.linspace(-1, 1, 2001))
    likelihood = [np.log(Fusion(a).prior(log_prior)[np.arange(len(y)), y]).mean() for a in grid]
    assert tempered.prior_alone == pytest.approx(grid[np.argmax(likelihood)], rel=2e-3)
    assert tempered.prior_alone == pytest.approx(Fusion.fit(log_prior, errors, y).prior_alone, rel=5e-3)


def test_fit_maximises_the_weighted_likelihood() -> None:
    """At the optimum no parameter's logarithm has a slope, by central differences of posteriors; a class is absent."""
    log_prior, errors, y = synthetic(Fusion(0.7, 0.7, 1.5, 0.3), n=4000, n_trials=4, k=3)
    log_prior[np.arange(400), (y[:400] + 1) % 3] = -np.inf
    weight = np.random.default_rng(1).uniform(0, 2, 4000)
    fitted = Fusion.fit(log_prior, errors, y, weight=weight)

    def likelihood(parameters: list[float]) -> float:
        of_right = [
            Fusion(*parameters).posterior(log_prior, errors[:, :n].sum(axis=1), np.full(4000, n))[np.arange(4000), y]
            for n in (0, 1, 2, 4)
        ]
        return float(np.average(np.log(of_right).mean(axis=0), weights=weight))

    optimum = [fitted.prior_alone, fitted.prior_weight, fitted.error_weight, fitted.correlation]
    for i, value in enumerate(optimum):
        up, down = ([*optimum[:i], value * math.exp(step), *optimum[i + 1 :]] for step in (0.01, -0.01))
        assert (likelihood(up) - likelihood(down)) / 0.02 == pytest.approx(0, abs=1e-3)  # the weak prior pulls by 1/n


def test_fitted_posteriors_mean_what_they_say() -> None:
    """On new images, whatever the number of trials: among answers of about that confidence, so many are right."""
    truth = Fusion(prior_alone=0.7, prior_weight=0.7, error_weight=1.0, correlation=0.2)
    fitted = Fusion.fit(*synthetic(truth, 3000, 16, 5))
    log_prior, errors, y = synthetic(truth, 6000, 16, 5, seed=1)
    for n in (0, 1, 3, 16):
        posterior = fitted.posterior(log_prior, errors[:, :n].sum(axis=1), np.full(6000, n))
        confidence, right = posterior.max(axis=1), posterior.argmax(axis=1) == y
        for low in np.arange(0.3, 1, 0.1):
            chosen = (confidence >= low) & (confidence < low + 0.1)
            if chosen.sum() > 200:
                assert right[chosen].mean() == pytest.approx(confidence[chosen].mean(), abs=0.08)


def test_trials_that_say_nothing_do_not_mislead() -> None:
    """The first trial's weight is zero."""
    truth = Fusion(prior_alone=0.7, prior_weight=0.7, error_weight=1.5, correlation=0.0)
    log_prior, errors, y = synthetic(truth, n=3000, n_trials=16, k=4)
    errors[:, 0] = 0.0
    assert Fusion.fit(log_prior, errors, y).error_weight == pytest.approx(1.5, rel=0.25)


def test_one_class_is_fitted_too() -> None:
    fitted = Fusion.fit(np.zeros((5, 1)), np.ones((5, 4, 1)), np.zeros(5, dtype=int))
    np.testing.assert_array_equal(fitted.prior(np.zeros((2, 1))), 1)


def test_fit_of_few_images_stays_sane() -> None:
    """Perfectly separable data have no finite optimum; the weak prior and the bounds keep the weights finite."""
    log_prior, errors, y = synthetic(Fusion(1, 1, 1.5, 0.1), 8, 4, 3)
    errors[np.arange(8), :, y] -= 1000
    fitted = Fusion.fit(log_prior, errors, y)
    values = (fitted.prior_alone, fitted.prior_weight, fitted.error_weight, fitted.correlation)
    assert all(math.isfinite(v) and v > 0 for v in values)
    posterior = fitted.posterior(log_prior, errors.sum(axis=1), np.full(8, 4))
    assert (posterior.argmax(axis=1) == y).all()


@pytest.mark.parametrize("name", ["prior_alone", "prior_weight", "error_weight", "correlation"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1", None, True])
def test_parameters_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be a finite number"):
        Fusion(**{name: value})
