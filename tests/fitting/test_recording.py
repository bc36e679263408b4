"""Recordings: which images and classes are in them, and with which errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from hybridclf.denoising.weighting import heuristic_weights, uniform_weights
from hybridclf.fitting import recording as module
from hybridclf.fitting.recording import Recording, record
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import FixedTrials
from tests.fitting.test_calibration import make_recording


def test_record_holds_the_likeliest_classes_of_the_usable_images(
    monkeypatch: pytest.MonkeyPatch, gaussian_denoiser: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, "RECORDED_TRIALS", 6)
    monkeypatch.setattr(module, "RECORDED_CLASSES", 3)
    rng = np.random.default_rng(0)
    classes = np.array(["ant", "bee", "cow", "dog", "elk"])
    denoiser = gaussian_denoiser(dict(zip(classes.tolist(), rng.standard_normal((5, 4)), strict=True)))
    images, y = rng.standard_normal((30, 4)), rng.integers(0, 5, 30)
    images[4] = np.inf  # its errors are not finite
    log_prior = log_softmax(rng.normal(size=(30, 5)), axis=1)
    made = record(denoiser, images, classes, log_prior, y, objective="l1", batch_size=7, seed=3)

    even = np.array([0, 3, 2, 5, 1, 4])  # van der Corput's order of six
    np.testing.assert_allclose(made.t, (even + 0.5) / 6, rtol=1e-6)
    np.testing.assert_allclose(made.alpha, np.cos(made.t * np.pi / 2), rtol=1e-6)
    np.testing.assert_allclose(made.sigma, np.sin(made.t * np.pi / 2), rtol=1e-6)
    noise = Reranker(denoiser, allocation=FixedTrials(6), random_state=3).plan.noise(np.arange(6))
    row = 0
    for i in range(30):
        top = sorted(np.argsort(-log_prior[i])[:3].tolist())
        if y[i] not in top or i == 4:
            continue
        np.testing.assert_array_equal(made.log_prior[row], log_prior[i, top])
        assert top[made.y[row]] == y[i]
        for j, (t, alpha, sigma) in enumerate(zip(made.t, made.alpha, made.sigma, strict=True)):
            x_t = torch.from_numpy(alpha * images[i] + sigma * noise[j]).expand(3, -1)
            condition = denoiser.condition(classes[top].tolist())
            predicted = denoiser.predict(x_t, torch.full((3,), t, dtype=torch.float64), torch.arange(3), condition)
            np.testing.assert_allclose(made.errors[row, j], np.abs(predicted.numpy() - noise[j]).sum(axis=1), rtol=1e-5)
        row += 1
    assert row == len(made.y) == len(made.errors) < 29


def test_weights_of_the_denoisers_own_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch, gaussian_denoiser: Callable[..., Any]
) -> None:
    """They are used where none are learned; what is learned rests on plain errors."""
    monkeypatch.setattr(module, "RECORDED_TRIALS", 4)
    rng = np.random.default_rng(0)
    denoiser = gaussian_denoiser({c: rng.standard_normal(4) for c in "ab"})
    images, log_prior, y = rng.standard_normal((5, 4)), np.log(np.full((5, 2), 0.5)), np.zeros(5, dtype=int)
    options: dict[str, Any] = {"objective": "l2", "batch_size": 7, "seed": 3}
    plain = record(denoiser, images, np.array(["a", "b"]), log_prior, y, **options)
    stage = Reranker(denoiser, allocation=FixedTrials(4), random_state=3)
    denoiser.weighting = heuristic_weights
    weighted = record(denoiser, images, np.array(["a", "b"]), log_prior, y, **options)
    np.testing.assert_array_equal(plain.errors, weighted.errors)
    own = Reranker(denoiser, allocation=FixedTrials(4), random_state=3)
    weights = heuristic_weights(plain.t, plain.alpha, plain.sigma)[:, None]
    for a, b in zip(*(s.rerank(images, [["a", "b"]] * 5) for s in (stage, own)), strict=True):
        np.testing.assert_allclose(b.evidence, a.evidence * weights, rtol=1e-5)
    given = Reranker(denoiser, allocation=FixedTrials(4), weighting=uniform_weights, random_state=3)
    assert given.weighting is uniform_weights


def test_record_without_usable_images(gaussian_denoiser: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDED_CLASSES", 1)
    denoiser = gaussian_denoiser({"a": np.zeros(2), "b": np.ones(2)})
    log_prior, y = np.log([[0.9, 0.1]] * 3), np.ones(3, dtype=int)
    made = record(denoiser, np.zeros((3, 2)), np.array(["a", "b"]), log_prior, y, objective="l2", batch_size=2, seed=0)
    assert made.errors.shape == (0, module.RECORDED_TRIALS, 1)
    assert made.log_prior.shape == (0, 1)
    assert made.y.shape == (0,)


def test_join_puts_images_together() -> None:
    a, b = make_recording(5, seed=1), make_recording(7, seed=2)
    joined = Recording.join([a, b])
    np.testing.assert_array_equal(joined.errors, np.concatenate([a.errors, b.errors]))
    np.testing.assert_array_equal(joined.log_prior, np.concatenate([a.log_prior, b.log_prior]))
    np.testing.assert_array_equal(joined.y, np.concatenate([a.y, b.y]))
    np.testing.assert_array_equal(joined.all_log_prior, joined.log_prior)
    np.testing.assert_array_equal(joined.all_y, joined.y)
    np.testing.assert_array_equal(joined.t, a.t)
