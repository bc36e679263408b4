"""Objectives against numpy lines, weights against the papers' formulas."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from hybridclf.denoising.objectives import OBJECTIVES, Transition, resolve_objective
from hybridclf.denoising.weighting import (
    MAX_WEIGHT,
    BinnedWeights,
    heuristic_weights,
    paired_gaps,
    resolve_weighting,
    uniform_weights,
    velocity_weights,
)
from hybridclf.errors import InvalidInputError

LINES = {
    "l2": lambda d: (d**2).sum(),
    "l1": lambda d: np.abs(d).sum(),
    "huber": lambda d: sum(v**2 if abs(v) < 1 else abs(v) for v in d.flat),
}


@pytest.mark.parametrize("name", LINES)
def test_objectives_equal_a_numpy_line(name: str) -> None:
    rng = np.random.default_rng(0)
    noise, predicted = rng.standard_normal((2, 6, 3, 4, 4))
    errors = resolve_objective(name)(torch.from_numpy(noise), torch.from_numpy(predicted))
    np.testing.assert_allclose(errors, [LINES[name](p - e) for e, p in zip(noise, predicted, strict=True)])


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_reduction_is_in_float32_whatever_the_input(name: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    noise, predicted = (torch.from_numpy(a).to(dtype) for a in rng.standard_normal((2, 3, 70_000)) * [[[1]], [[2]]])
    errors = OBJECTIVES[name](noise, predicted)
    assert errors.dtype == torch.float32
    exact = [LINES[name](d) for d in (predicted.double() - noise.double()).numpy()]
    np.testing.assert_allclose(errors, exact, rtol=1e-5)  # far over float16's 65504, far finer than bfloat16's 0.4 %


def test_float64_stays_float64() -> None:
    noise, predicted = torch.zeros(2, 5, dtype=torch.float64), torch.full((2, 5), 1 / 3, dtype=torch.float64)
    assert all(objective(noise, predicted).dtype == torch.float64 for objective in OBJECTIVES.values())


def test_objective_names() -> None:
    with pytest.raises(InvalidInputError, match=r"'l2', 'l1', 'huber', 'vlb', 'l2\+vlb'; got 'mse'"):
        resolve_objective("mse")


def test_uniform_weights_are_one() -> None:
    assert uniform_weights(*np.random.default_rng(0).random((3, 5))).tolist() == [1.0] * 5


def test_heuristic_weights_are_clark_and_jainis_in_epsilon() -> None:
    """w(t)·‖ε − ε̂‖² = exp(−7t)·‖x − x̂‖² where x̂ = (x_t − σ ε̂)/α: what a model that predicts x would be scored by."""
    rng = np.random.default_rng(0)
    t = np.linspace(0.02, 0.97, 30)
    alpha, sigma = np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)
    x, noise, predicted = rng.standard_normal((3, 30, 16))
    x_t = alpha[:, None] * x + sigma[:, None] * noise
    x_hat = (x_t - sigma[:, None] * predicted) / alpha[:, None]
    in_x = np.exp(-7 * t) * ((x - x_hat) ** 2).sum(axis=1)
    in_eps = heuristic_weights(t, alpha, sigma) * ((noise - predicted) ** 2).sum(axis=1)
    np.testing.assert_allclose(in_eps, in_x)


def test_heuristic_weights_are_bounded_where_no_signal_is_left() -> None:
    t = np.array([0.999999, 0.3])
    weights = heuristic_weights(t, np.array([0.0, 1e-4]), np.array([1.0, 1.0]))
    assert weights[1] == MAX_WEIGHT
    assert np.isfinite(weights).all()
    assert (weights <= MAX_WEIGHT).all()


def test_paired_gaps_by_hand() -> None:
    errors = np.array([[[1, 5, 3], [2, 0, 9]], [[4, 4, 1], [7, 8, 6]]], dtype=np.float32)
    assert paired_gaps(errors, np.array([0, 1])).tolist() == [[[4, 2], [-2, 7]], [[0, -3], [-1, -2]]]
    assert errors.max() == 9  # untouched


def test_binned_weights_by_hand() -> None:
    """Two images, right class 0: gaps 1 and 3 (mean 2, variance 1) early, 2 and 6 (mean 4, variance 4) late."""
    errors = np.array([[[0, 1], [0, 2]], [[0, 3], [0, 6]]], dtype=float)
    weights = BinnedWeights.fit(errors, t=np.array([0.25, 0.75]), y=np.array([0, 0]), n_bins=2)
    np.testing.assert_allclose(weights.values, np.array([2.0, 1.0]) / 1.5)
    at = weights(np.array([0.0, 0.4, 0.5, 1.0]), *np.ones((2, 4)))
    np.testing.assert_allclose(at, np.array([2, 2, 1, 1]) / 1.5)


def test_binned_weights_fill_bins_without_trials_and_never_go_negative() -> None:
    y = np.array([0, 0])
    early, late = np.array([1.0, 3.0]), np.array([-5.0, -1.0])  # late trials mislead
    errors = np.zeros((2, 2, 2))
    errors[:, 0, 1], errors[:, 1, 1] = early, late
    weights = BinnedWeights.fit(errors, t=np.array([0.1, 0.5]), y=y, n_bins=5).values
    np.testing.assert_allclose(weights, np.array([2, 1, 0, 0, 0]) / 0.6)
    assert BinnedWeights.fit(-errors[:, :1], np.array([0.1]), y, n_bins=5).values.tolist() == [1.0] * 5


def test_binned_weights_beat_uniform_ones_where_some_times_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    t = (np.arange(20) + 0.5) / 20
    errors = rng.standard_normal((2000, 20, 2)) * np.where(t < 0.5, 1, 5)[:, None]
    y = rng.integers(0, 2, 2000)
    errors[np.arange(2000), :, y] -= np.where(t < 0.5, 0.5, 0.1)
    weights = BinnedWeights.fit(errors[:1000], t, y[:1000], n_bins=4)(t, t, t)

    def accuracy(w: np.ndarray) -> float:
        return ((errors[1000:] * w[:, None]).sum(axis=1).argmin(axis=1) == y[1000:]).mean()

    assert accuracy(weights) > accuracy(np.ones(20)) + 0.1


def test_weighting_names() -> None:
    assert resolve_weighting("learned") is None
    assert resolve_weighting("uniform") is uniform_weights
    assert resolve_weighting("heuristic") is heuristic_weights
    with pytest.raises(InvalidInputError, match="weighting must be one of 'learned', 'uniform', 'heuristic'"):
        resolve_weighting("snr")


# --- the variational bound --------------------------------------------------------------------------------------------


def transitions(n: int = 40, shape: tuple[int, ...] = (3, 4, 4)) -> tuple[np.ndarray, ...]:
    """Linear β of 1000 levels, n of them (the first among them), images, noise, predictions and log-variances."""
    rng = np.random.default_rng(0)
    beta = np.linspace(1e-4, 0.02, 1000)
    level = np.concatenate([[0, 0, 0, 1, 2, 999], rng.integers(0, 1000, n - 6)])
    x0 = rng.uniform(-1, 1, (n, *shape))
    x0.flat[::7] = np.resize([-1, 1], x0.flat[::7].shape)  # black and white are bins without an end
    noise, predicted = rng.standard_normal((2, n, *shape))
    predicted = noise + 0.2 * predicted
    signal = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], signal[:-1]])[level]
    true = (1 - before) / (1 - signal[level]) * beta[level]
    low, high = np.log(np.maximum(true, 1e-5)), np.log(beta[level])
    share = rng.uniform(-0.2, 1.2, (n, *shape))
    across = (slice(None), *[None] * len(shape))
    log_variance = share * high[across] + (1 - share) * low[across]
    return beta[level], signal[level], before, x0, noise, predicted, log_variance


def as_transition(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Transition]:
    _, signal, before, x0, noise, predicted, log_variance = transitions()
    levels = (np.sqrt(v) for v in (signal, 1 - signal, before, 1 - before))
    noise, predicted, *rest = (torch.from_numpy(v).to(dtype) for v in (noise, predicted, x0, log_variance, *levels))
    return noise, predicted, Transition(*rest)


def plain_bound() -> list[float]:
    """Equations 6, 7 and 13 of arXiv 2006.11239 in NumPy, by torch's own KL divergence and SciPy's normal, in bits."""
    bits = []
    for beta, signal, before, x0, noise, predicted, log_variance in zip(*transitions(), strict=True):
        x_t = np.sqrt(signal) * x0 + np.sqrt(1 - signal) * noise
        x0_hat = (x_t - np.sqrt(1 - signal) * predicted) / np.sqrt(signal)
        of_x0, of_x_t = np.sqrt(before) * beta / (1 - signal), np.sqrt(1 - beta) * (1 - before) / (1 - signal)
        mean, scale = of_x0 * x0_hat + of_x_t * x_t, np.exp(log_variance / 2)
        if before == 1:
            upper = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
            lower = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
            mass = norm.cdf(upper, mean, scale) - norm.cdf(lower, mean, scale)
            bits.append(-np.log2(np.maximum(mass, 1e-12)).sum())
        else:
            true = of_x0 * x0 + of_x_t * x_t, np.full_like(x0, np.sqrt((1 - before) / (1 - signal) * beta))
            q, p = (Normal(*map(torch.from_numpy, v)) for v in (true, (mean, scale)))
            bits.append(kl_divergence(q, p).sum().item() / np.log(2))
    return bits


def test_the_bound_is_ddpms() -> None:
    noise, predicted, transition = as_transition(torch.float64)
    errors = resolve_objective("vlb")(noise, predicted, transition)
    np.testing.assert_allclose(errors, plain_bound(), rtol=1e-8)
    both = resolve_objective("l2+vlb")(noise, predicted, transition)
    np.testing.assert_allclose(both, errors + resolve_objective("l2")(noise, predicted))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_the_bound_survives_float32(dtype: torch.dtype, rtol: float) -> None:
    """β at the first levels is the difference of numbers near 1; and half precision is made up for where it can be."""
    noise, predicted, transition = as_transition(torch.float32)
    errors = resolve_objective("vlb")(noise, predicted.to(dtype), transition)
    assert errors.dtype == torch.float32
    np.testing.assert_allclose(errors, plain_bound(), rtol=rtol)


def test_a_perfect_model_has_no_divergence() -> None:
    """ε̂ = ε and Σ = β̃: nothing to pay, but at the first level."""
    noise, _, transition = as_transition(torch.float64)
    beta = transition.sigma**2 - (transition.alpha / transition.alpha_before * transition.sigma_before) ** 2
    true = (beta * (transition.sigma_before / transition.sigma) ** 2).log().view(-1, 1, 1, 1)
    perfect = transition._replace(log_variance=true.clamp(min=-10).expand_as(noise))
    errors = resolve_objective("vlb")(noise, noise, perfect)
    np.testing.assert_allclose(errors[transition.sigma_before > 0], 0, atol=1e-9)
    assert (errors[transition.sigma_before == 0] > 0).all()


def test_velocity_weights_are_a_flows_own() -> None:
    """w·‖ε − ε̂‖² = ‖v − v̂‖² of a velocity v = ε − x0, where ε̂ = x_t + α·v̂ and x_t = α·x0 + (1 − α)·ε."""
    rng = np.random.default_rng(0)
    t = np.linspace(0.01, 0.99, 30)
    alpha, sigma = 1 - t, t
    x0, noise, velocity = rng.standard_normal((3, 30, 16))
    x_t = alpha[:, None] * x0 + sigma[:, None] * noise
    predicted = x_t + alpha[:, None] * velocity
    in_v = ((noise - x0 - velocity) ** 2).sum(axis=1)
    in_eps = velocity_weights(t, alpha, sigma) * ((noise - predicted) ** 2).sum(axis=1)
    np.testing.assert_allclose(in_eps, in_v)
    assert np.isfinite(velocity_weights(np.ones(1), np.zeros(1), np.ones(1)))
