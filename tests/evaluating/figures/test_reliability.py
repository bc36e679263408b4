"""Intervals of a reliability diagram."""

import numpy as np

from hybridclf.evaluating.figures.reliability import bin_accuracies
from hybridclf.metrics import accuracy, equal_count_bins, reliability_bins


def test_each_bin_has_the_interval_of_its_images() -> None:
    rng = np.random.default_rng(0)
    films = np.arange(200) // 4
    confidence, right = rng.uniform(0.5, 1, 200), (rng.random(50) < 0.7)[films]
    for bins in (equal_count_bins(confidence, right, 3), reliability_bins(confidence, right, 4)):
        found = bin_accuracies(bins, confidence, right, films)
        filled = bins.count > 0
        np.testing.assert_allclose([one.value for one in found], bins.accuracy[filled])
        own = confidence <= bins.edges[1:][filled][0]
        assert found[0] == accuracy(right[own], groups=films[own]) != accuracy(right[own])
