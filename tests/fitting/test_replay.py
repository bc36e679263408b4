"""Replays: an allocation on recorded errors answers as it would with a denoiser."""

import numpy as np
import pytest
from scipy.special import softmax

from hybridclf.fitting.recording import Recording
from hybridclf.fitting.replay import replay
from hybridclf.reranking.allocation import FixedTrials, Race
from tests.fitting.test_calibration import FUSED, make_recording


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording(600)


@pytest.mark.parametrize("top_k", [1, 3, 6, None])
def test_replay_of_fixed_trials_is_the_posterior_of_the_candidates(recording: Recording, top_k: int | None) -> None:
    """Candidates share their prior mass by the fusion's formula; all other classes keep tier 1's."""
    log_prior, errors = recording.log_prior[:50], recording.errors[:50]
    final, _ = replay(FUSED, FixedTrials(8), log_prior, errors, top_k)
    np.testing.assert_allclose(final.sum(axis=1), 1)
    lengths = set()
    for p, prior, table in zip(final, log_prior, errors, strict=True):
        first = softmax(0.8 * prior)
        order = np.argsort(-first)
        k = next(k for k in range(1, 7) if first[order[:k]].sum() >= 0.999) if top_k is None else top_k
        lengths.add(k)
        among = order[:k]
        scores = 0.6 * prior[among] - 0.7 / (1 + 0.25 * 7) * table[:8, among].sum(axis=0, dtype=float)
        expected = first.copy()
        expected[among] = softmax(scores) * first[among].sum()
        np.testing.assert_allclose(p, expected if k > 1 else first, rtol=1e-6)
    assert len(lengths) == 1 or top_k is None


def test_replay_of_a_race_leaves_alone_what_the_prior_settles(recording: Recording) -> None:
    first = FUSED.prior(recording.log_prior)
    sure = first.max(axis=1) >= 0.8
    final, _ = replay(FUSED, Race(0.8, 16), recording.log_prior, recording.errors)
    np.testing.assert_allclose(final.sum(axis=1), 1)
    assert 0 < sure.sum() < len(sure)
    changed = np.abs(final - first).max(axis=1) > 1e-12
    top = np.sort(softmax(0.8 * recording.log_prior, axis=1), axis=1)
    assert not changed[top[:, -1] >= 0.8 + 1e-3].any()  # the candidates hold at least 0.999 of the mass
    assert changed[top[:, -1] < 0.8 - 1e-3].all()
