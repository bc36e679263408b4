"""Tests of many comparisons, against worked examples."""

import numpy as np
import pytest
from scipy.stats import binom
from significance import better_than, holm, significant


def test_one_sided_mcnemar_is_the_upper_tail_of_a_fair_coin() -> None:
    right = np.array([True] * 9 + [False] * 2 + [True] * 5)
    before = np.array([False] * 9 + [True] * 2 + [True] * 5)
    assert better_than(right, before) == pytest.approx(binom.sf(8, 11, 0.5))
    assert better_than(before, right) == pytest.approx(binom.sf(1, 11, 0.5))
    assert better_than(right, right) == 1.0


def test_holm_multiplies_by_the_hypotheses_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_significant_names_are_those_that_holm_rejects() -> None:
    assert significant({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == ["d", "a"]
