"""Answers by the lowest mean error, beside brute force and the loop that replays."""

import numpy as np
import pytest

from hybridclf import FixedTrials
from hybridclf.denoising.weighting import heuristic_weights
from hybridclf.evaluating.figures.tier_2 import right_by_error, trial_counts
from hybridclf.evaluating.methods import Method, replay
from hybridclf.evaluating.study import Study


def test_as_by_hand(study: Study) -> None:
    trials, weights = np.array([7, 2, 5]), np.linspace(0.5, 2, 12)
    right = right_by_error(study.test, trials, weights, "l1")
    for i, own in enumerate(right):
        sums = [sum(weights[j] * study.test.errors["l1"][i, j, c] for j in trials) for c in range(3)]
        assert own == (study.test.candidates[i, sums.index(min(sums))] == study.test.y[i])
    assert 0 < right.sum() < len(right)


def test_as_it_is_replayed(study: Study) -> None:
    recording = study.recording.select(np.arange(90))
    recording.errors["l2"][3, 5, 1], recording.errors["l2"][4, 9] = np.nan, np.inf
    method = Method("", FixedTrials(8), top_k=3, blind=True, weighting=heuristic_weights)
    answers = replay(method, recording)
    weights = heuristic_weights(recording.t, recording.alpha, recording.sigma)
    right = right_by_error(recording, slice(8), weights)
    np.testing.assert_array_equal(right, answers.label == recording.y)
    assert answers.stopped_by[3] == "fallback"


@pytest.mark.parametrize(("n", "counts"), [(2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12]), (1, [1])])
def test_counts_of_trials(n: int, counts: list[int]) -> None:
    assert trial_counts(n) == counts
