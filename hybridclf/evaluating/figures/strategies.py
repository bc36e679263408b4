"""Strategies of choosing timesteps, and how they scale with the number of trials."""

from collections.abc import Sequence

import numpy as np

from ...denoising.weighting import paired_gaps
from ...reranking.trials import InformativeOrder
from ..recording import Recording
from ..study import Study
from ..wording import against, percent
from .drawing import Figure, drawn
from .scaling import Curves, draw_scaling, scaling_rows
from .tier_2 import right_by_error, trial_counts

__all__ = ["around", "strategies"]

EVEN = "even"

ANCHORS: dict[str, Sequence[float]] = {
    "middle": (0.5,),
    "first": (0.0,),
    "last": (1.0,),
    "first, middle, last": (0.0, 0.5, 1.0),
    "even 5": [(i + 0.5) / 5 for i in range(5)],
    "even 10": [(i + 0.5) / 10 for i in range(10)],
}
"""Times that the trials of a strategy are nearest to."""


def strategies(study: Study) -> Figure:
    """Accuracy over the number of trials when their timesteps are even, or near a few times, or fitted.

    In a recording each timestep has one noise, so that what the paper repeats with new noise are neighbours here; all
    strategies are the same at T trials. The fitted order, most telling timesteps first, is that of the images for
    calibration, on which the rival of the title is chosen, too.
    """
    orders = _orders(study)
    right = _curves(study.test, study, orders)
    rows = scaling_rows("strategy", right, EVEN, study.test.groups)
    n = max(1, study.recording.n_trials // 4)
    others = {name: orders[name][:n] for name in orders if name != EVEN and len(ANCHORS.get(name, ())) <= n}
    weights = _weights(study)
    rival = max(others, key=lambda name: right_by_error(study.calibration, others[name], weights).mean())
    own = {EVEN: right_by_error(study.test, orders[EVEN][:n], weights)}
    own[rival] = right_by_error(study.test, others[rival], weights)
    one, every = (percent(right[EVEN][m].mean()) for m in (1, study.recording.n_trials))
    title = (
        f"From one trial to {study.recording.n_trials} even timesteps go from {one} to {every}; with {n} (even: "
        f"{percent(own[EVEN].mean())}) {against(EVEN, own, study.test.groups)}"
    )
    picture = drawn(lambda: draw_scaling("strategy", rows))
    return Figure("strategies", title, "Figure 4 of arXiv 2303.16203", rows, picture)


def around(t: np.ndarray, anchors: Sequence[float]) -> np.ndarray:
    """Positions of trials at times t `[T]`, nearest to some times first, and for each of these in turn.

    Times 0.1, 0.3, 0.7, 0.9 around 0 and 1: 0.1, 0.9, 0.3, 0.7.
    """
    distance = np.abs(t[:, None] - np.asarray(anchors))
    nearest = distance.argmin(axis=1)
    turn = np.empty(len(t), dtype=int)
    for a in range(len(anchors)):
        own = np.flatnonzero(nearest == a)
        turn[own[distance[own, a].argsort(kind="stable")]] = np.arange(len(own))
    return np.lexsort((nearest, turn))


def _orders(study: Study) -> dict[str, np.ndarray]:
    """The order in which each strategy uses the recorded trials."""
    t, made = study.recording.t, study.calibration.for_fitting("l2")
    fitted = InformativeOrder.fit(paired_gaps(made.errors * _weights(study)[:, None], made.y), t)
    orders = {EVEN: np.arange(len(t))} | {name: around(t, anchors) for name, anchors in ANCHORS.items()}
    return orders | {"fitted": np.argsort(-fitted.at(t), kind="stable")}


def _weights(study: Study) -> np.ndarray:
    return study.weighting(study.recording.t, study.recording.alpha, study.recording.sigma)


def _curves(recording: Recording, study: Study, orders: dict[str, np.ndarray]) -> Curves:
    """Right answers of every strategy, from as many trials on as it has times."""
    return {
        name: {
            n: right_by_error(recording, order[:n], _weights(study))
            for n in trial_counts(recording.n_trials)
            if n >= len(ANCHORS.get(name, (0.5,)))
        }
        for name, order in orders.items()
    }
