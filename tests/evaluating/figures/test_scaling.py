"""Curves over the number of trials: strategies, objectives and weights."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridclf.denoising.weighting import BinnedWeights, heuristic_weights
from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.figures.objectives import vlb_weights
from hybridclf.evaluating.figures.strategies import around
from hybridclf.evaluating.study import Study
from hybridclf.reranking.trials import even_order


def accuracies(rows: Any, kind: str) -> dict[tuple[str, int], float]:
    return {(row[kind], row["trials"]): row["accuracy"][0] for row in rows}


def by_hand(study: Study, trials: np.ndarray, weights: np.ndarray | None = None, objective: str = "l2") -> float:
    """Accuracy on the test images by the lowest weighted mean error."""
    test, weights = study.test, np.ones(12) if weights is None else weights
    means = (test.errors[objective] * weights[:, None])[:, trials].mean(axis=1)
    return float((test.candidates[np.arange(len(test)), means.argmin(axis=1)] == test.y).mean())


def test_trials_around_times() -> None:
    t = np.array([0.1, 0.7, 0.3, 0.9, 0.5])
    assert around(t, [0.52]).tolist() == [4, 1, 2, 3, 0]
    assert t[around(t, [0.0])].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert around(np.array([0.1, 0.3, 0.7, 0.9]), [0.0, 1.0]).tolist() == [0, 3, 1, 2], "each time in turn"
    even = (np.arange(64) + 0.5) / 64
    for n in (5, 10):
        times = (np.arange(n) + 0.5) / n
        chosen = np.sort(even[around(even, times.tolist())[:n]])
        np.testing.assert_allclose(chosen, times, atol=1 / 128)


def test_strategies(study: Study) -> None:
    found, t = accuracies(make_figure("strategies", study).rows, "strategy"), study.recording.t
    for n in (1, 4, 12):
        assert found["even", n] == pytest.approx(by_hand(study, np.arange(n)))
        assert found["first", n] == pytest.approx(by_hand(study, np.argsort(t)[:n]))
        assert found["last", n] == pytest.approx(by_hand(study, np.argsort(-t)[:n]))
    assert found["middle", 2] == pytest.approx(by_hand(study, np.argsort(abs(t - 0.5))[:2]))
    assert len({found[name, 12] for name, n in found if n == 12}) == 1, "all trials are all trials"
    assert ("even 5", 4) not in found and ("even 5", 8) in found


def test_what_is_fitted_is_so_on_the_images_for_calibration(make_study: Callable[..., Study], study: Study) -> None:
    """Other right classes of the test images change no choice and no weight."""
    shuffled = make_study()
    test = np.flatnonzero(~shuffled.calibrating)
    shuffled.recording.y[test] = shuffled.recording.y[test[::-1]]
    for name, kind in (("strategies", "strategy"), ("weightings", "weighting")):
        figure = make_figure(name, shuffled)
        assert accuracies(figure.rows, kind) != accuracies(make_figure(name, study).rows, kind)
    made = study.calibration.for_fitting("l2")
    learned = BinnedWeights.fit(made.errors, made.t, made.y)(study.recording.t, np.ones(12), np.ones(12))
    found = accuracies(make_figure("weightings", shuffled).rows, "weighting")
    assert found["learned", 12] == pytest.approx(by_hand(shuffled, np.arange(12), learned))


def test_objectives(study: Study) -> None:
    figure = make_figure("objectives", study)
    found = accuracies(figure.rows, "objective")
    assert {name for name, _ in found} == {"l1", "l2", "vlb"} and figure.rows[0]["objective"] == "l2"
    bound = vlb_weights(study.recording)
    assert found["vlb", 8] == pytest.approx(by_hand(study, np.arange(8), bound))
    for name in ("l1", "l2"):
        assert found[name, 8] == pytest.approx(by_hand(study, np.arange(8), objective=name))
    last = next(row for row in figure.rows if row["objective"] == "l1" and row["trials"] == 12)
    assert last["difference"][0] == pytest.approx(found["l1", 12] - found["l2", 12])
    assert last["difference"][1] <= last["difference"][0] <= last["difference"][2]
    assert figure.title.startswith(f"In 12 trials l2 has {100 * found['l2', 12]:.1f} %; l1")


def test_weights_of_the_bound(study: Study) -> None:
    """For α = cos(πt/2), σ = sin(πt/2): γ = 2 log tan(πt/2), so that γ'/2 = π / sin(πt); and that of a DDPM's steps."""
    t = even_order(400) / 400 + 0.5 / 400
    levels = {"t": t, "alpha": np.cos(np.pi * t / 2), "sigma": np.sin(np.pi * t / 2)}
    inner = (t > 0.05) & (t < 0.95)
    weights = vlb_weights(replace(study.recording, **levels))
    np.testing.assert_allclose(weights[inner], (np.pi / np.sin(np.pi * t))[inner], rtol=0.01)
    beta = np.linspace(1e-4, 0.02, 1000)  # KL of a step with the posterior's variance: β² / (2 σ̃² α (1 - ᾱ)) ‖ε - ε̂‖²
    bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], bar[:-1]])
    with np.errstate(divide="ignore"):
        of_step = beta / (2 * (1 - before) * (1 - beta))  # σ̃² = β (1 - ᾱ_{t-1}) / (1 - ᾱ_t)
    levels = {"t": np.arange(1, 1001) / 1000, "alpha": np.sqrt(bar), "sigma": np.sqrt(1 - bar)}
    weights = vlb_weights(replace(study.recording, **levels)) / 1000
    np.testing.assert_allclose(weights[50:], of_step[50:], rtol=0.05)


def test_weightings(study: Study) -> None:
    found = accuracies(make_figure("weightings", study).rows, "weighting")
    recording = study.recording
    heuristic = heuristic_weights(recording.t, recording.alpha, recording.sigma)
    assert found["heuristic", 12] == pytest.approx(by_hand(study, np.arange(12), heuristic))
    assert found["uniform", 4] == pytest.approx(by_hand(study, np.arange(4)))


def test_a_model_with_weights_of_its_own(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.clf.denoiser_.weighting = heuristic_weights
    found = accuracies(make_figure("weightings", study).rows, "weighting")
    assert all(found["the model's own", n] == found["heuristic", n] for _, n in found)
    objectives: Mapping[Any, float] = accuracies(make_figure("objectives", study).rows, "objective")
    assert objectives["l2", 12] == found["heuristic", 12]
