"""Timestep weights: uniform, heuristic, and learned on the images for calibration."""

from ...denoising.weighting import BinnedWeights, Weighting, heuristic_weights, uniform_weights
from ..study import Study
from ..wording import against, percent
from .drawing import Figure, drawn
from .scaling import draw_scaling, scaling_rows
from .tier_2 import right_by_error, trial_counts

__all__ = ["weightings"]

REFERENCE = "the weightings of arXiv 2303.15233"


def weightings(study: Study) -> Figure:
    """Accuracy of tier 2 alone by timestep weights, over the number of trials."""
    made, test = study.calibration.for_fitting("l2"), study.test
    functions: dict[str, Weighting] = {
        "uniform": uniform_weights,
        "heuristic": heuristic_weights,
        "learned": BinnedWeights.fit(made.errors, made.t, made.y),
    }
    if study.weighting is not uniform_weights:
        functions["the model's own"] = study.weighting
    weights = {name: function(test.t, test.alpha, test.sigma) for name, function in functions.items()}
    right = {
        name: {n: right_by_error(test, slice(n), own) for n in trial_counts(test.n_trials)}
        for name, own in weights.items()
    }
    rows = scaling_rows("weighting", right, "uniform", test.groups)
    all_trials = {name: curve[test.n_trials] for name, curve in right.items()}
    title = (
        f"In {test.n_trials} trials uniform weights have {percent(all_trials['uniform'].mean())}; "
        f"{against('uniform', all_trials, test.groups)}"
    )
    return Figure("weightings", title, REFERENCE, rows, drawn(lambda: draw_scaling("weighting", rows)))
