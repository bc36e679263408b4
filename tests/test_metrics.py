"""Metrics against scipy, scikit-learn and brute force."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, sem, t
from sklearn.calibration import calibration_curve

from hybridclf.errors import InvalidInputError
from hybridclf.metrics import (
    Interval,
    accuracy,
    accuracy_difference,
    equal_count_bins,
    expected_calibration_error,
    mean_interval,
    reliability_bins,
)


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Confidence `[n]` and whether each answer is right, over-sure at the top."""
    rng = np.random.default_rng(0)
    confidence = rng.beta(5, 1, size=500)
    return confidence, rng.random(500) < confidence**1.5


def test_intervals_in_words() -> None:
    assert Interval(0.881, 0.85, 0.907).percent() == "88.1 % (85.0 to 90.7)"
    assert Interval(0.009, -0.001, 0.019).points() == "+0.9 points (-0.1 to 1.9)"


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (7, 10), (890, 899), (899, 899)])
def test_accuracy_has_the_wilson_interval(hits: int, n: int) -> None:
    share, z = hits / n, norm.ppf(0.975)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    measured = accuracy(np.arange(n) < hits)
    assert measured.value == share
    assert (measured.low, measured.high) == pytest.approx((max(centre - half, 0), min(centre + half, 1)), abs=1e-12)


def test_copies_in_groups_say_no_more_than_one_of_each() -> None:
    rng = np.random.default_rng(0)
    right, before, values, weight = rng.random(200) < 0.8, rng.random(200) < 0.7, rng.random(200), rng.random(200) + 0.1
    four, films = (lambda a: np.repeat(a, 4)), np.repeat(np.array([f"film {i}" for i in range(200)]), 4)
    copies, alone = accuracy(four(right), groups=films), np.arange(800)
    assert astuple(copies) == pytest.approx(astuple(accuracy(right)), abs=1e-3)  # Student's t, 199 degrees of freedom
    assert astuple(accuracy(four(right), groups=alone)) == pytest.approx(astuple(accuracy(four(right))))
    assert accuracy(four(right)).low > copies.low
    gains = accuracy_difference(four(right), four(before), groups=films), accuracy_difference(right, before)
    assert astuple(gains[0]) == pytest.approx(astuple(gains[1]), abs=6e-3)
    grouped = mean_interval(four(values), four(weight), films)
    assert astuple(grouped) == pytest.approx(astuple(mean_interval(values, weight)), abs=1e-3)
    assert mean_interval(four(values), four(weight)).low > grouped.low
    every = [astuple(accuracy(np.ones(n, bool), groups=g)) for n, g in ((800, films), (200, None))]
    assert every[0] == pytest.approx(every[1], abs=1e-3)
    with pytest.raises(ValueError, match="800 answers and 200 groups"):
        accuracy(four(right), groups=films[:200])


def test_a_weight_counts_as_so_many_answers_that_go_together() -> None:
    rng = np.random.default_rng(0)
    right, before, times = rng.random(300) < 0.8, rng.random(300) < 0.7, rng.integers(1, 4, 300)
    units = np.repeat(np.arange(300), times)
    for weighted, repeated in (
        (accuracy(right, weight=times), accuracy(np.repeat(right, times), groups=units)),
        (
            accuracy_difference(right, before, weight=times),
            accuracy_difference(np.repeat(right, times), np.repeat(before, times), groups=units),
        ),
    ):
        assert astuple(weighted) == pytest.approx(astuple(repeated), rel=1e-9)
    rare = np.where(np.arange(200) < 10, 10.0, 10 / 19)  # as class_weight="balanced" makes it
    ten, every = accuracy(np.ones(10, bool)), accuracy(np.ones(200, bool), weight=rare)
    assert ten.low < every.low < accuracy(np.ones(200, bool)).low - 0.05
    gone = np.append(np.ones(300), np.zeros(900))
    kept = accuracy_difference(np.append(right, np.ones(900, bool)), np.append(before, np.ones(900, bool)), weight=gone)
    assert astuple(kept) == pytest.approx(astuple(accuracy_difference(right, before)))
    some = np.arange(300) < 200
    without = accuracy(right, weight=some.astype(float))
    assert astuple(without) == pytest.approx(astuple(accuracy(right[:200])), abs=1e-3)  # Student's t
    assert accuracy(np.ones(300, bool), weight=some * 2.0).low == pytest.approx(accuracy(some[:200]).low, abs=1e-3)


def test_a_weighted_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Ten of 200 images are rare and weigh as much as all others together."""
    rng, rare = np.random.default_rng(0), np.arange(200) < 10
    weight, truth = np.where(rare, 9.5, 0.5), 0.92
    covered = 0
    for _ in range(500):
        found = accuracy(rng.random(200) < np.where(rare, 0.9, 0.94), weight=weight)
        covered += found.low <= truth <= found.high
    assert covered > 500 * 0.93


@pytest.mark.parametrize("n_films", [5, 100])
def test_an_interval_by_groups_covers_the_truth_as_often_as_it_says(n_films: int) -> None:
    """Films of 1 to 10 frames, whose frames are right or wrong together with probability 1/2."""
    rng = np.random.default_rng(0)

    def answers(films: np.ndarray, share: float) -> np.ndarray:
        together = (rng.random(n_films) < 0.5)[films]
        return np.where(together, (rng.random(n_films) < share)[films], rng.random(len(films)) < share)

    covered = dict.fromkeys(["accuracy", "by image", "difference"], 0)
    for _ in range(500):
        films = np.repeat(np.arange(n_films), rng.integers(1, 11, n_films))
        right, before = answers(films, 0.8), answers(films, 0.7)
        found = {"accuracy": accuracy(right, groups=films), "by image": accuracy(right)}
        found["difference"] = accuracy_difference(right, before, groups=films)
        for name, interval in found.items():
            covered[name] += interval.low <= (0.1 if name == "difference" else 0.8) <= interval.high
    assert min(covered["accuracy"], covered["difference"]) > 500 * 0.91 > covered["by image"]


def test_of_a_single_group_nothing_is_known() -> None:
    right, film = np.arange(50) < 40, np.zeros(50)
    assert astuple(accuracy(right, groups=film)) == (0.8, 0, 1)
    assert astuple(accuracy_difference(right, ~right, groups=film)) == pytest.approx((0.6, -1, 1))
    assert mean_interval(right.astype(float), groups=film).high == np.inf


def test_a_wider_interval_for_more_confidence() -> None:
    right = np.arange(100) < 80
    assert accuracy(right, 0.99).low < accuracy(right, 0.9).low < 0.8 < accuracy(right, 0.9).high


def test_calibration_error_by_brute_force(answers: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, right = answers
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected > 0.02
    assert expected_calibration_error(confidence, right) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 5, 15])
def test_bins_are_those_of_scikit_learn(answers: tuple[np.ndarray, np.ndarray], n_bins: int) -> None:
    confidence, right = answers
    confidence[:3] = 0, 1, 1 / n_bins  # ends of bins
    bins = reliability_bins(confidence, right, n_bins)
    full = bins.count > 0
    share, mean = calibration_curve(right, confidence, n_bins=n_bins)
    np.testing.assert_allclose(bins.accuracy[full], share)
    np.testing.assert_allclose(bins.confidence[full], mean)
    assert bins.count.sum() == len(right)
    assert bins.edges.shape == (n_bins + 1,)
    assert np.isnan(bins.accuracy[~full]).all()


@pytest.mark.parametrize("n_bins", [1, 7, 10])
def test_bins_of_equal_counts_are_those_of_sorted_confidence(
    answers: tuple[np.ndarray, np.ndarray], n_bins: int
) -> None:
    confidence, right = answers
    bins = equal_count_bins(confidence, right, n_bins)
    assert bins.count.sum() == len(right) and np.ptp(bins.count) <= 2 and len(bins.count) == n_bins
    ends = np.cumsum(bins.count)
    for i, (low, high) in enumerate(zip(ends - bins.count, ends, strict=True)):
        inside = confidence.argsort()[low:high]
        assert bins.confidence[i] == pytest.approx(confidence[inside].mean())
        assert bins.accuracy[i] == right[inside].mean()
        assert (confidence[inside] > bins.edges[i]).all() and (confidence[inside] <= bins.edges[i + 1]).all()


def test_equal_confidences_are_in_one_bin() -> None:
    same = equal_count_bins(np.full(100, 0.9), np.arange(100) < 80)
    assert same.count.tolist() == [100] and same.accuracy.tolist() == [0.8]
    assert equal_count_bins(np.array([0.2, 0.4, 0.4, 0.9]), np.ones(4, dtype=bool), 2).count.tolist() == [3, 1]
    assert equal_count_bins(np.array([0.9, 0.6]), np.array([True, False])).count.tolist() == [1, 1]


@pytest.mark.parametrize("bins_of", [reliability_bins, equal_count_bins])
def test_confidences_are_read_alike(bins_of: Any) -> None:
    """As a list, and where single precision has rounded them above 1."""
    made = bins_of([0.21, 0.41, 0.91, 1.0], [False, True, False, True])
    single = np.array([0.21, 0.41, 0.91, 1.0000001], dtype=np.float32)
    rounded = bins_of(single, np.array([False, True, False, True]))
    assert made.count.sum() == 4 and rounded.count.tolist() == made.count.tolist()
    np.testing.assert_allclose(rounded.confidence, made.confidence, atol=1e-6)
    for confidence in (np.nan, 1.001, -0.001):
        with pytest.raises(InvalidInputError, match=r"confidence must lie in \[0, 1\]"):
            bins_of(np.array([0.5, confidence]), np.array([True, True]))


def test_perfect_confidence_has_no_error() -> None:
    assert expected_calibration_error(np.array([1.0, 1.0 + 1e-12]), np.array([True, True])) == pytest.approx(0)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([False, True])) == 1


def test_difference_agrees_with_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    right, baseline = rng.random(300) < 0.97, rng.random(300) < 0.93
    ours = accuracy_difference(right, baseline)
    theirs = bootstrap(
        (right.astype(float), baseline.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    assert ours.value == pytest.approx(right.mean() - baseline.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


@pytest.mark.parametrize(("fixed", "broken", "n"), [(0, 0, 20), (1, 0, 1), (3, 1, 50), (168, 88, 5000)])
def test_difference_has_the_interval_of_bonett_and_price(fixed: int, broken: int, n: int) -> None:
    """Written out, with Student's t for the n + 2 images in place of the normal quantile."""
    right, before = np.arange(n) < n - broken, np.arange(n) >= fixed
    p, q = (fixed + 1) / (n + 2), (broken + 1) / (n + 2)
    half = t.ppf(0.975, n + 1) * np.sqrt((p + q - (p - q) ** 2) / (n + 1))
    measured = accuracy_difference(right, before)
    assert measured.value == (fixed - broken) / n
    assert (measured.low, measured.high) == pytest.approx((max(p - q - half, -1), min(p - q + half, 1)))


@pytest.mark.parametrize(("n", "fixed", "broken"), [(20, 0.05, 0.0), (100, 0.02, 0.005), (500, 0.004, 0.001)])
def test_few_changed_answers_do_not_close_the_interval(n: int, fixed: float, broken: float) -> None:
    """Coverage where hardly an answer differs; a percentile bootstrap has 64 to 86 % there."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        draw = rng.random(n)
        interval = accuracy_difference(draw >= broken, draw < 1 - fixed)
        covered += interval.low <= fixed - broken <= interval.high
    assert covered >= 400 * 0.95


def test_a_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).random(12)
    low, high = t.interval(0.95, 11, values.mean(), sem(values))
    measured = mean_interval(values)
    assert (measured.low, measured.high) == pytest.approx((low, high))
    weighted = mean_interval(np.append(values, [9.0, -9.0]), np.append(np.ones(12), [0, 0]))
    assert astuple(weighted) == pytest.approx(astuple(measured))


def test_bad_input_is_refused() -> None:
    nothing = np.zeros(0, dtype=bool)
    for measure in (accuracy, lambda r: accuracy_difference(r, r)):
        with pytest.raises(InvalidInputError, match="no answers"):
            measure(nothing)
    for confidence in (1.5, -0.1, np.nan):
        with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
            reliability_bins(np.array([confidence]), np.array([True]))
    with pytest.raises(ValueError, match="inconsistent"):
        accuracy_difference(np.ones(2, dtype=bool), np.ones(3, dtype=bool))
