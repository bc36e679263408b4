"""The paired t-test: accuracy against evaluations by its p."""

from typing import Any

from ...reranking.allocation import FixedTrials, PairedTTest
from ..methods import Method
from ..study import Study
from .drawing import Figure, drawn
from .savings import draw_savings, saved, saving_rows

__all__ = ["t_test"]

P_VALUES = (0.0002, 0.002, 0.02, 0.2)
"""Below these a class is dropped; the paper's is 0.002."""

FIRST_TESTS = (5, 20)
"""Trials before the first test; the paper's are 20."""


def t_test(study: Study) -> Figure:
    """Accuracy of tier 2 alone against evaluations when a paired t-test drops classes, by p and by its first test."""
    n_trials, k = study.recording.n_trials, study.recording.candidates.shape[1]
    shared: dict[str, Any] = {"top_k": k, "blind": True, "weighting": study.weighting}
    first_tests = sorted({min(first, n_trials) for first in FIRST_TESTS})
    tests = [PairedTTest(p, first, n_trials) for first in first_tests for p in P_VALUES]
    methods = [({"first test": test.min_trials, "p": test.p}, Method("", test, **shared)) for test in tests]
    rows = saving_rows(methods, study.test, Method("", FixedTrials(n_trials), **shared))
    published = {row["first test"]: row for row in rows if row["p"] == PairedTTest().p}
    savings = (f"from trial {n} on {saved(published[n], study.recording.cost_unit)}" for n in reversed(first_tests))
    title = f"The paired t-test at p = {PairedTTest().p:g} against all {n_trials} trials: {'; '.join(savings)}"
    reference = "the savings of Algorithm 1 of arXiv 2303.15233"
    return Figure("t_test", title, reference, rows, drawn(lambda: draw_savings(rows, "first test", "p")))
