"""Noise that is shared or not, and drawn otherwise."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, truncnorm

from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.figures.noise import CHANGES, OWN, SHARED
from hybridclf.evaluating.recording import record
from hybridclf.evaluating.study import Study
from hybridclf.fitting.validation import class_numbers


def test_distributions() -> None:
    noise = np.random.default_rng(0).standard_normal((2000, 3, 4))
    changed = {name: change(noise) for name, change in CHANGES.items()}
    assert not changed["zero"].any()
    for limit in (1, 2.5):
        own = changed[f"truncated to [-{limit}, {limit}]"]
        assert kstest(own.ravel(), truncnorm(-limit, limit).cdf).pvalue > 0.01
        np.testing.assert_array_equal(np.argsort(own.ravel()), np.argsort(noise.ravel()))
    normed = changed["of the expected norm"]
    norms = np.linalg.norm(noise.reshape(2000, -1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(normed.reshape(2000, -1), axis=1), norms.mean(), rtol=0.02)
    np.testing.assert_allclose(normed / noise, (normed / noise)[:, :1, :1] * np.ones((1, 3, 4)))


def test_the_denoiser_is_asked_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items, y = world.clf._read(world.images), class_numbers(world.labels, world.clf.classes_)
    recording = record(world.clf, items, y, trials=12, top_k=6)
    study = Study(world.clf, items, recording, np.arange(len(y)) % 3 == 0)
    monkeypatch.setitem(CHANGES, "unchanged", np.asarray)  # type: ignore[arg-type]
    figure = make_figure("noise", study)
    rows = {row["noise"]: row for row in figure.rows}
    assert list(rows) == [SHARED, OWN, *CHANGES]
    test = study.test
    best = test.errors["l2"][:, :8].sum(axis=1).argmin(axis=1)
    assert rows[SHARED]["accuracy"][0] == pytest.approx(test.hit[np.arange(len(test)), best].mean())
    assert rows["unchanged"] == rows[SHARED] | {"noise": "unchanged"}, "the recorded noise is the one that is changed"
    assert rows[OWN]["difference"][0] < -0.05, rows[OWN]  # unpaired differences drown in the noise
    assert figure.svg.startswith("<svg")
