"""Accuracy against evaluations: stages, pruning and the paired t-test, beside the papers' algorithms."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_rel

from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.study import Study


def t_tested(errors: np.ndarray, p: float, first: int) -> tuple[int, int]:
    """Algorithm 1 of arXiv 2303.15233 on the errors `[T, k]` of one image: the candidate, and the evaluations."""
    alive, spent, n = list(range(errors.shape[1])), 0, 0
    while len(alive) > 1 and n < len(errors):
        n, spent = n + 1, spent + len(alive)
        best = min(alive, key=lambda c: errors[:n, c].mean())
        if n >= first:
            alive = [c for c in alive if c == best or ttest_rel(errors[:n, c], errors[:n, best]).pvalue >= p]
    return min(alive, key=lambda c: errors[:n, c].mean()), spent


def test_t_test(study: Study) -> None:
    rows = {(row["first test"], row["p"]): row for row in make_figure("t_test", study).rows}
    assert {first for first, _ in rows} == {5, 12}, "no more than there are trials"
    test = study.test
    for first, p in ((5, 0.002), (5, 0.2), (12, 0.02)):
        found = [t_tested(table, p, first) for table in test.errors["l2"]]
        right = test.hit[np.arange(len(test)), [best for best, _ in found]]
        assert rows[first, p]["accuracy"][0] == pytest.approx(right.mean())
        spent = np.mean([evaluations for _, evaluations in found])
        assert rows[first, p]["evaluations"] == pytest.approx(spent)
        assert rows[first, p]["fewer_evaluations"] == pytest.approx(36 / spent)


def test_pruning_by_tier_1(study: Study) -> None:
    rows = {(row["allocation"], row["top_k"]): row for row in make_figure("stages", study).rows}
    test = study.test
    assert rows.keys() == {("all trials", 2), ("all trials", 3)}, "three classes are fewer than the first stage keeps"
    means = test.errors["l2"].mean(axis=1)
    for k in (2, 3):
        right = test.hit[np.arange(len(test)), means[:, :k].argmin(axis=1)]
        row = rows["all trials", k]
        assert row["accuracy"][0] == pytest.approx(right.mean())
        assert row["evaluations"] == 12 * k and row["fewer_evaluations"] == pytest.approx(3 / k)
    value, low, high = rows["all trials", 3]["difference"]
    assert value == 0 and 0 < high == -low


def test_stages(make_study: Callable[..., Study]) -> None:
    study = make_study(cost_unit="row", k=7, n_classes=10)
    figure, test = make_figure("stages", study), study.test
    rows = [row for row in figure.rows if row["allocation"] == "stages"]
    assert [row["top_k"] for row in rows] == [7] and rows[0]["stages"] == "Staged(keep=(5, 1), trials=(1, 12))"
    right = []
    for table, hit in zip(test.errors["l2"], test.hit, strict=True):
        kept = np.argsort(table[0], kind="stable")[:5]
        right.append(hit[kept[table[:, kept].mean(axis=0).argmin()]])
    assert rows[0]["accuracy"][0] == pytest.approx(np.mean(right))
    assert rows[0]["evaluations"] == 7 + 5 * 11 and rows[0]["rows"] == 12
    assert "stages" in figure.title and "(rows: 1.0 times)" in figure.title
