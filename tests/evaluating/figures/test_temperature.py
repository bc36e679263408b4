"""Confidence of tier 2 alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.figures.temperature import inverse_temperature
from hybridclf.evaluating.study import Study
from hybridclf.metrics import expected_calibration_error


def test_the_temperature_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    truth = 3 * rng.standard_normal((4000, 5))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)  # drawn from softmax(truth)
    hit = np.arange(5) == y[:, None]
    assert inverse_temperature(truth / 100, hit) == pytest.approx(100, rel=0.1)
    grid = np.geomspace(30, 300, 200)
    likelihood = [log_softmax(b * truth / 100, axis=1)[hit].mean() for b in grid]
    assert inverse_temperature(truth / 100, hit) == pytest.approx(grid[int(np.argmax(likelihood))], rel=0.02)
    without = np.vstack([hit, np.zeros((50, 5), bool)])
    more = np.vstack([truth, 9 * rng.standard_normal((50, 5))])
    assert inverse_temperature(more / 100, without) == pytest.approx(inverse_temperature(truth / 100, hit))


def test_errors_are_counted(study: Study) -> None:
    rows = {row["confidence"]: row for row in make_figure("temperature", study).rows}
    assert list(rows) == ["softmax", "temperature", "call counts"]
    scores = -0.5 * study.test.errors["l2"].mean(axis=1)
    p = np.exp(log_softmax(scores, axis=1))
    right = study.test.hit[np.arange(len(p)), p.argmax(axis=1)]
    error = expected_calibration_error(p.max(axis=1), right)
    assert rows["softmax"]["calibration_error"][0] == pytest.approx(error)
    for row in rows.values():
        value, low, high = row["calibration_error"]
        assert 0 <= low < value < high and row["images"] == 45


def test_images_without_finite_errors_are_left_out(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.recording.errors["l2"][[0, 1, 3], 2, 0] = np.nan
    figure = make_figure("temperature", study)
    assert {row["images"] for row in figure.rows} == {43}


def test_novel_images_are_left_out(make_study: Callable[..., Study]) -> None:
    """Tier 1 answers them without an evaluation."""
    study = make_study()
    study.recording.novel[[0, 1, 3]] = True
    assert {row["images"] for row in make_figure("temperature", study).rows} == {43}


def test_where_all_images_are_novel_nothing_is_compared(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.recording.novel[:] = True
    figure = make_figure("temperature", study)
    assert figure.rows == [] and "Tier 2 answers none of the images" in figure.title


def test_intervals_allow_for_groups(make_study: Callable[..., Study]) -> None:
    """Every image nine times over: the intervals are those of a few pictures, three times as wide."""
    study = make_study()
    films = np.arange(90) // 2 % 5 * 2 + np.arange(90) % 2  # five pictures to calibrate on, and five to test on
    first = study.recording.select(films)
    widths = []
    for groups in (None, films):
        copies = Study(study.clf, study.items, replace(first, groups=groups), study.calibrating)
        _, low, high = make_figure("temperature", copies).rows[0]["calibration_error"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.1)


def test_all_right_on_the_images_for_calibration(make_study: Callable[..., Study], study: Study) -> None:
    """Nothing to regress on: the share of right answers is the confidence."""
    sure = make_study(np.full(12, 50.0))
    assert not sure.calibration.hit.any(axis=1).all()
    inside = sure.recording.hit.any(axis=1) | ~sure.calibrating
    kept = Study(sure.clf, sure.items, sure.recording.select(inside), sure.calibrating[inside])
    rows = {row["confidence"]: row for row in make_figure("temperature", kept).rows}
    n = len(kept.calibration)
    assert rows["call counts"]["mean_confidence"] == pytest.approx((n + 1) / (n + 2))
