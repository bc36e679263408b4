"""Single trials by time."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import sem, t

from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.study import Study


def test_rows_are_counted(study: Study) -> None:
    figure = make_figure("timesteps", study)
    test, right = study.test, {}
    for j, time in enumerate(test.t):
        best = test.candidates[np.arange(len(test)), test.errors["l2"][:, j].argmin(axis=1)]
        right[float(time)] = best == test.y
    assert len(figure.rows) == 8 and sum(len(row["trials"]) for row in figure.rows) == 12
    for row in figure.rows:
        own = {time: r for time, r in right.items() if row["from"] <= time < row["to"]}
        assert row["trials"] == [[time, pytest.approx(own[time].mean())] for time in sorted(own)]
        shares = np.mean(list(own.values()), axis=0)
        assert row["accuracy"][0] == pytest.approx(shares.mean())
        assert row["accuracy"][1:] == pytest.approx(t.interval(0.95, len(shares) - 1, shares.mean(), sem(shares)))


@pytest.mark.parametrize(
    ("telling", "said"),
    [
        (lambda t: 4 * np.sin(np.pi * t), "most often mid-schedule"),
        (lambda t: 4 * (1 - t), r"near one end of the schedule, not in its middle: .* at t from 0(\.125)? to"),
        (lambda t: 4 * t, r"near one end of the schedule, not in its middle: .* at t from 0\.(75|875) to"),
        (np.zeros_like, "nowhere in particular"),
    ],
)
def test_the_title_says_where(
    make_study: Callable[..., Study], study: Study, telling: Callable[..., np.ndarray], said: str
) -> None:
    title = make_figure("timesteps", make_study(telling(study.recording.t))).title
    assert re.search(said, title), title
