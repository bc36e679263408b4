"""Accuracy of single trials by their timestep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...demo.style import BLUE, GREY, new_figure
from ...metrics import mean_interval
from ..recording import Recording
from ..study import Study
from ..wording import as_list, percent
from .drawing import Figure, drawn
from .tier_2 import right_by_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["timesteps"]

N_BINS = 8
"""Parts of the schedule; single trials are too few images each to find a peak."""


def timesteps(study: Study) -> Figure:
    """Share of test images that one trial answers right, by its time, and the mean of each eighth of the schedule.

    The best eighth is that of the images for calibration.
    """
    t = study.recording.t
    bins = np.minimum((t * N_BINS).astype(int), N_BINS - 1)
    right, of_calibration = _right(study.test), _right(study.calibration)
    shares = {int(b): right[:, bins == b].mean(axis=1) for b in np.unique(bins)}  # of every image, by eighth
    rows: list[dict[str, Any]] = [
        {
            "from": b / N_BINS,
            "to": (b + 1) / N_BINS,
            "accuracy": as_list(mean_interval(share, groups=study.test.groups)),
            "calibration_accuracy": float(of_calibration[:, bins == b].mean()),
            "trials": sorted([float(t[j]), float(right[:, j].mean())] for j in np.flatnonzero(bins == b)),
        }
        for b, share in shares.items()
    ]
    best = int(np.argmax([row["calibration_accuracy"] for row in rows]))
    title = _title(rows, list(shares.values()), best, study.test.groups)
    return Figure("timesteps", title, "Figure 3 of arXiv 2303.16203", rows, drawn(lambda: _draw(rows)))


def _right(recording: Recording) -> np.ndarray:
    """True where a trial alone is right, bool `[n, T]`."""
    return np.stack([right_by_error(recording, np.array([j])) for j in range(recording.n_trials)], axis=1)


def _title(rows: Sequence[Any], shares: Sequence[np.ndarray], best: int, groups: np.ndarray | None) -> str:
    higher = [mean_interval(shares[best] - shares[end], groups=groups).low > 0 for end in (0, -1)]
    first, top, last = (percent(rows[i]["accuracy"][0]) for i in (0, best, -1))
    if all(higher):
        where = "mid-schedule"
    elif any(higher):
        where = "near one end of the schedule, not in its middle"
    else:
        where = "nowhere in particular"
    return (
        f"Single trials are right most often {where}: {top} at t from {rows[best]['from']:g} to {rows[best]['to']:g}; "
        f"{first} at the least noise, {last} at the most"
    )


def _draw(rows: Sequence[Any]) -> "Drawing":
    figure = new_figure(7.5, 3.6)
    axes = figure.subplots()
    trials = np.array([trial for row in rows for trial in row["trials"]])
    axes.plot(trials[:, 0], 100 * trials[:, 1], ".", color=GREY, label="one trial")
    value, low, high = 100 * np.array([row["accuracy"] for row in rows]).T
    middle = [(row["from"] + row["to"]) / 2 for row in rows]
    style: dict[str, Any] = {"color": BLUE, "markersize": 5, "elinewidth": 1.4}
    axes.errorbar(middle, value, [value - low, high - value], fmt="o-", label="mean of an eighth", **style)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="time t of the trial (0: no noise, 1: noise alone)")
    axes.set_ylabel("accuracy of one trial, %\n(95 % interval)")
    figure.legend(loc="outside right center", fontsize=8.5)
    return figure
