"""Confidence of tier 2 alone: softmax of its errors, with a temperature, or from the number of calls it took."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...demo.style import COLOURS, new_figure
from ...metrics import Interval, equal_count_bins, expected_calibration_error
from ...reranking.allocation import PairedTTest
from ..methods import Method, replay
from ..recording import Recording
from ..study import Study
from ..wording import as_list
from .drawing import Figure, drawn
from .reliability import draw_bins

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["inverse_temperature", "temperature"]

N_BINS = 10
"""Bins of the picture, of equally many images."""

N_RESAMPLES = 1000

FIRST_TEST = 5
"""Trials before the first t-test; after the paper's 20, few images of a recording differ in their number of calls."""


class Answered(NamedTuple):
    """Confidence in n answers, and the share of right ones.

    Attributes
    ----------
    confidence : float array `[n]`
        Probability that the answer is right.
    right : bool array `[n]`
        Where it is.
    """

    confidence: np.ndarray
    right: np.ndarray


def temperature(study: Study) -> Figure:
    """Expected calibration error of three confidences: softmax, softmax at a temperature, and Platt-scaled call counts.

    Temperature and scaling are fitted on the images for calibration. Images whose answers are tier 1's are left out:
    novel ones, and those with errors that are not finite.
    """
    calibration, test = _by_tier_2(study.calibration), _by_tier_2(study.test)
    if not (len(test) and calibration.hit.any()):
        return Figure("temperature", "Tier 2 answers none of the images, so that no confidence is its own", "", [], "")
    sharpness = inverse_temperature(_scores(study, calibration), calibration.hit)
    answered = {
        "softmax": _by_softmax(study, test, 1.0),
        "temperature": _by_softmax(study, test, sharpness),
        "call counts": _by_calls(study, calibration, test),
    }
    errors, difference = _calibration_errors(answered, test.units, study.seed)
    rows = [
        {
            "confidence": name,
            "images": len(test),
            "calibration_error": as_list(errors[name]),
            "mean_confidence": float(own.confidence.mean()),
            "accuracy": float(own.right.mean()),
        }
        for name, own in answered.items()
    ]
    word = "better than" if difference.high < 0 else "worse than" if difference.low > 0 else "not told from"
    listed = ", ".join(f"{name} {e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for name, e in errors.items())
    title = f"Call counts are {word} a temperature as a confidence; expected calibration error: {listed}"
    return Figure(
        "temperature", title, "the calibration of arXiv 2303.15233", rows, drawn(lambda: _draw(answered, test.units))
    )


def inverse_temperature(scores: np.ndarray, hit: np.ndarray) -> float:
    """The factor on log-scores `[n, k]` that makes the right candidates, bool `[n, k]`, likeliest.

    Images without a right candidate are left out.
    """
    among = hit.any(axis=1)

    def loss(log_factor: float) -> float:
        return -float(log_softmax(np.exp(log_factor) * scores[among], axis=1)[hit[among]].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-8, 12), method="bounded").x))


def _by_tier_2(recording: Recording) -> Recording:
    return recording.select(np.isfinite(recording.errors["l2"]).all(axis=(1, 2)) & ~recording.novel)


def _scores(study: Study, recording: Recording) -> np.ndarray:
    """Log-density of unit Gaussian noise, the mean over all trials: minus half the weighted error, `[n, k]`."""
    weights = study.weighting(recording.t, recording.alpha, recording.sigma)
    return -0.5 * np.einsum("ntk,t->nk", recording.errors["l2"], weights) / recording.n_trials


def _by_softmax(study: Study, recording: Recording, sharpness: float) -> Answered:
    p = softmax(sharpness * _scores(study, recording), axis=1)
    return Answered(p.max(axis=1), recording.hit[np.arange(len(p)), p.argmax(axis=1)])


def _by_calls(study: Study, calibration: Recording, test: Recording) -> Answered:
    """The probability that the paired t-test's answer is right, by logistic regression on the log of its calls."""
    n_trials = test.n_trials
    allocation = PairedTTest(min_trials=min(FIRST_TEST, n_trials), max_trials=n_trials)
    method = Method("", allocation, top_k=test.candidates.shape[1], blind=True, weighting=study.weighting)
    before, now = replay(method, calibration), replay(method, test)
    right = before.label == calibration.y
    if right.all() or not right.any():  # nothing to regress on
        confidence = np.full(len(test), (right.sum() + 1) / (len(right) + 2))
    else:
        calls = [np.log(answers.evaluations)[:, None] for answers in (before, now)]
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(calls[0], right)
        confidence = model.predict_proba(calls[1])[:, 1]
    return Answered(confidence, now.label == test.y)


def _calibration_errors(
    answered: Mapping[str, Answered], units: np.ndarray, seed: int
) -> tuple[dict[str, Interval], Interval]:
    """The error of each confidence, and by how much call counts exceed the temperature, by a paired bootstrap.

    Groups are drawn whole, by their numbers `[n]`. Resampling raises this error, so that its spread alone makes the
    interval: two standard deviations to each side.
    """
    n, rng = int(units.max()) + 1, np.random.default_rng(seed)
    own = np.array([expected_calibration_error(*a) for a in answered.values()])
    samples = np.empty((N_RESAMPLES, len(own)))
    for sample in samples:
        times = np.bincount(rng.integers(n, size=n), minlength=n)
        images = np.repeat(np.arange(len(units)), times[units])
        sample[:] = [expected_calibration_error(a.confidence[images], a.right[images]) for a in answered.values()]
    reach = 1.96 * samples.std(axis=0)
    intervals = {
        name: Interval(float(e), max(0.0, float(e - r)), float(e + r))
        for name, e, r in zip(answered, own, reach, strict=True)
    }
    value, half = float(own[2] - own[1]), 1.96 * float((samples[:, 2] - samples[:, 1]).std())
    return intervals, Interval(value, value - half, value + half)


def _draw(answered: Mapping[str, Answered], units: np.ndarray) -> "Drawing":
    figure = new_figure(9.6, 3.4)
    panels = figure.subplots(1, len(answered), sharex=True, sharey=True)
    for axes, (name, own), colour in zip(panels, answered.items(), COLOURS, strict=False):
        draw_bins(axes, equal_count_bins(*own, N_BINS), *own, units, fmt="o", color=colour, markersize=5)
        axes.set_title(name, fontsize=9.5)
    panels[0].set_ylabel("accuracy (95 % interval)")
    return figure
