"""Stages of trials, and pruning by tier 1: accuracy against evaluations."""

from typing import Any

import numpy as np

from ...reranking.allocation import Allocation, FixedTrials
from ..methods import Method, replay, staged_preset
from ..study import Study
from .drawing import Figure, drawn
from .savings import draw_savings, saved, saving_rows

__all__ = ["stages"]

TOP_KS = (2, 3, 5, 10, 20)
"""Classes of tier 1 that are compared."""


def stages(study: Study) -> Figure:
    """Accuracy of tier 2 alone against evaluations, with stages and without, among all candidates and tier 1's first.

    Stages are left out where as few classes are compared as the first one keeps. What the title says of tier 1's first
    classes is of the way, and as many of them, as have the highest accuracy on the images for calibration, the fewest
    first.
    """
    n_candidates, n_trials = study.recording.candidates.shape[1], study.recording.n_trials
    whole, pruned = _methods(study, n_candidates), [m for k in TOP_KS if k < n_candidates for m in _methods(study, k)]
    rows = saving_rows([*pruned, *whole], study.test, whole[0][1])
    unit, parts = study.recording.cost_unit, []
    if len(whole) > 1:
        parts.append(f"stages {saved(rows[-1], unit)}")
    if pruned:
        calibration = study.calibration
        of_calibration = [(replay(method, calibration).label == calibration.y).mean() for _, method in pruned]
        best = rows[int(np.argmax(of_calibration))]
        parts.append(f"{best['allocation']} of tier 1's first {best['top_k']} classes {saved(best, unit)}")
    title = f"Against all {n_trials} trials of {n_candidates} classes: {'; '.join(parts) or 'nothing to leave out'}"
    reference = "Tables 6 and 7 of arXiv 2303.16203"
    return Figure("stages", title, reference, rows, drawn(lambda: draw_savings(rows, "allocation", "top_k")))


def _methods(study: Study, top_k: int) -> list[tuple[dict[str, Any], Method]]:
    """All trials, and the published stages if they drop any, of tier 1's first classes."""
    n_trials = study.recording.n_trials
    staged = staged_preset(len(study.recording.classes), top_k, n_trials)
    allocations: dict[str, Allocation] = {"all trials": FixedTrials(n_trials)}
    if len(staged.trials) > 1:
        allocations["stages"] = staged
    return [
        (
            {"allocation": name, "top_k": top_k, "stages": str(allocation)},
            Method(name, allocation, top_k=top_k, blind=True, weighting=study.weighting),
        )
        for name, allocation in allocations.items()
    ]
