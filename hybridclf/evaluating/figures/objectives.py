"""Objectives: errors between noise and predicted noise."""

import numpy as np

from ..recording import Recording
from ..study import Study
from ..wording import against, percent
from .drawing import Figure, drawn
from .scaling import draw_scaling, scaling_rows
from .tier_2 import right_by_error, trial_counts

__all__ = ["objectives", "vlb_weights"]

REFERENCE = "Tables 5, 8 and 9 of arXiv 2303.16203"


def objectives(study: Study) -> Figure:
    """Accuracy of tier 2 alone by every objective, over the number of trials.

    The variational bound of a denoiser without a learned variance is ℓ2 with weights that follow from the noise levels.
    """
    test = study.test
    weights = study.weighting(test.t, test.alpha, test.sigma)
    asked = {name: (name, weights) for name in sorted(test.errors, key=lambda name: name != "l2")}
    asked.setdefault("vlb", ("l2", vlb_weights(test)))
    right = {
        name: {n: right_by_error(test, slice(n), own, objective) for n in trial_counts(test.n_trials)}
        for name, (objective, own) in asked.items()
    }
    rows = scaling_rows("objective", right, "l2", test.groups)
    all_trials = {name: curve[test.n_trials] for name, curve in right.items()}
    title = f"In {test.n_trials} trials l2 has {percent(all_trials['l2'].mean())}; "
    title += against("l2", all_trials, test.groups)
    return Figure("objectives", title, REFERENCE, rows, drawn(lambda: draw_scaling("objective", rows)))


def vlb_weights(recording: Recording) -> np.ndarray:
    """Weights `[T]` of the squared ε-error in the variational bound of a model with fixed variances.

    In continuous time it is E_t[γ'(t)/2 · ‖ε - ε̂‖²] in nats, with γ = -log SNR = 2 log(σ/α): Equation 17 of arXiv
    2107.00630. The derivative is taken by differences of the recorded times.
    """
    t, at, back = np.unique(recording.t, return_index=True, return_inverse=True)
    gamma = 2 * np.log(np.maximum(recording.sigma[at], 1e-6) / np.maximum(recording.alpha[at], 1e-6))
    return np.asarray(np.gradient(gamma, t)[back] / 2)
