"""Trials: an order whose every prefix is usable, and noise that follows from (seed, trial) alone."""

import numpy as np
import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.reranking import trials
from hybridclf.reranking.trials import InformativeOrder, TrialPlan, even_order, nearest_trials

SIZES = [*range(1, 40), 100, 250, 256, 1000]


@pytest.mark.parametrize("n", SIZES)
def test_even_order_is_a_permutation_with_nearly_even_prefixes(n: int) -> None:
    order = even_order(n)
    assert sorted(order) == list(range(n))
    for m in range(1, n + 1):
        points = np.sort(order[:m]) / n
        widest = np.diff(points, append=points[0] + 1).max()  # the gap around the end counts too
        assert widest < 2 / m, (m, points)


def test_even_order_halves_the_gaps_of_powers_of_two() -> None:
    order = even_order(64)
    for m in (1, 2, 4, 8, 16, 32, 64):
        assert sorted(order[:m]) == list(range(0, 64, 64 // m))


def test_timesteps_are_midpoints_in_the_plans_order() -> None:
    plan = TrialPlan(5, (3,), order=[4, 0, 2, 1, 3])
    np.testing.assert_allclose(plan.timesteps(np.arange(5)), [0.9, 0.1, 0.5, 0.3, 0.7], rtol=1e-6)
    assert len(plan) == 5
    assert np.array_equal(TrialPlan(20, (3,)).order, even_order(20))


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_an_order_that_is_no_permutation_is_refused(order: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=r"permutation of range\(3\)"):
        TrialPlan(3, (2,), order=order)


def test_noise_depends_on_seed_and_trial_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, n = (2, 3, 3), 12
    by_trial = TrialPlan(n, shape, seed=7, order=range(n)).noise(np.arange(n))
    assert by_trial.shape == (n, *shape)
    assert by_trial.dtype == np.float32

    shuffled = np.random.default_rng(0).permutation(n)
    plan = TrialPlan(n, shape, seed=7, order=shuffled)
    positions = np.array([3, 3, 11, 0, 5])
    np.testing.assert_array_equal(plan.noise(positions), by_trial[shuffled[positions]])

    longer = TrialPlan(3 * n, shape, seed=7, order=range(3 * n))
    np.testing.assert_array_equal(longer.noise(np.arange(n)), by_trial)

    monkeypatch.setattr(trials, "_NOISE_CACHE_BYTES", 1)  # room for one trial: everything is drawn again
    forgetful = TrialPlan(n, shape, seed=7, order=range(n))
    for i in (2, 9, 2, 0, 9):
        np.testing.assert_array_equal(forgetful.noise(np.array([i]))[0], by_trial[i])

    other = TrialPlan(n, shape, seed=8, order=range(n)).noise(np.arange(n))
    everything = np.concatenate([by_trial, other]).reshape(2 * n, -1)
    assert len(np.unique(everything)) == everything.size  # no trial repeats another, nor another seed's


def test_callers_cannot_spoil_the_noise() -> None:
    plan = TrialPlan(3, (4,))
    first = plan.noise(np.arange(3))
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(plan.noise(np.arange(3)), kept)


def test_noise_is_standard_normal() -> None:
    noise = TrialPlan(50, (40, 40), seed=1).noise(np.arange(50)).reshape(50, -1)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert np.abs(np.corrcoef(noise) - np.eye(50)).max() < 5 / 40  # trials are independent


def test_telling_order_fits_d_prime_by_time() -> None:
    t = np.array([0.1, 0.2, 0.6, 0.7, 0.9])
    gaps = np.array([[1.0, 3.0, 5.0, 5.0, 0.0], [2.0, 2.0, 7.0, 3.0, 2.0]])
    order = InformativeOrder.fit(gaps, t, n_bins=2)
    late = gaps[:, 2:]
    expected = [2.0 / np.sqrt(0.5), late.mean() / late.std()]
    np.testing.assert_allclose(order.discriminability, expected)
    np.testing.assert_allclose(order.at(np.array([0.0, 0.49, 0.5, 0.999])), np.repeat(expected, 2))


def test_telling_order_reads_unseen_bins_off_their_neighbours() -> None:
    gaps = np.array([[1.0, 6.0], [3.0, 10.0]])  # d′ = 2 and 4
    order = InformativeOrder.fit(gaps, np.array([0.1, 0.9]), n_bins=5)
    np.testing.assert_allclose(order.discriminability, [2, 2.5, 3, 3.5, 4])


def test_telling_order_puts_telling_times_first_and_keeps_the_even_order_among_equals() -> None:
    telling = InformativeOrder(np.array([1.0, 3.0, 2.0, 0.0]))
    order = telling(64)
    times = (order + 0.5) / 64
    assert sorted(order) == list(range(64))
    expected = [i for quarter in (1, 2, 0, 3) for i in even_order(64) if i // 16 == quarter]
    assert order.tolist() == expected
    assert (np.diff(telling.at(times)) <= 0).all()
    assert np.array_equal(InformativeOrder(np.ones(4))(50), even_order(50))


@pytest.mark.parametrize("recorded", [4, 32, 64])
def test_recorded_trials_stand_for_those_of_a_shorter_plan(recorded: int) -> None:
    """The first n are near the n planned ones, each within a recorded step of it; all others follow."""
    t = (even_order(recorded) + 0.5) / recorded
    for n in range(1, recorded + 1):
        order = nearest_trials(n, t)
        assert sorted(order) == list(range(recorded))
        planned = TrialPlan(n, (2,)).timesteps(np.arange(n))
        assert np.abs(t[order[:n]] - planned).max() <= 0.5 / recorded + 1e-6, n
    np.testing.assert_array_equal(nearest_trials(recorded + 1, t), np.arange(recorded))
