"""Objectives: errors between noise and predicted noise."""

from ..study import Study
from .drawing import Figure, drawn
from .scaling import draw_scaling, scaling_rows
from .tier_2 import right_by_error, trial_counts
from .wording import against, percent

__all__ = ["objectives"]

REFERENCE = "Tables 5, 8 and 9 of arXiv 2303.16203"


def objectives(study: Study) -> Figure:
    """Accuracy of tier 2 alone by every objective that was recorded, over the number of trials."""
    test = study.test
    weights = study.weighting(test.t, test.alpha, test.sigma)
    right = {
        name: {n: right_by_error(test, slice(n), weights, name) for n in trial_counts(test.n_trials)}
        for name in sorted(test.errors, key=lambda name: name != "l2")
    }
    rows = scaling_rows("objective", right, "l2")
    all_trials = {name: curve[test.n_trials] for name, curve in right.items()}
    title = f"In {test.n_trials} trials l2 has {percent(all_trials['l2'].mean())}; {against('l2', all_trials)}"
    return Figure("objectives", title, REFERENCE, rows, drawn(lambda: draw_scaling("objective", rows)))
