"""Weights and groups that `fit` is given."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.utils import compute_sample_weight

from hybridclf.errors import InvalidInputError
from hybridclf.fitting.routing import metadata_of, weights_of

Y = np.array([0, 0, 1, 1, 2, 2])


def test_balanced_weights_are_those_of_the_items_that_count() -> None:
    given = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    weight = weights_of(given, "balanced", Y)
    assert weight is not None and not weight[[0, 1, 5]].any()
    np.testing.assert_allclose(weight[2:5], compute_sample_weight("balanced", Y[2:5]))


def test_weights_by_class_may_name_a_class_without_weight() -> None:
    weight = weights_of([0, 0, 1, 1, 1, 1], {0: 2.0, 1: 1.0, 2: 3.0}, Y)
    assert weight is not None and weight.tolist() == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize("weights", [{0: 0, 1: 0, 2: 0}, {0: -1.0, 1: 1.0, 2: 1.0}])
def test_class_weights_that_make_no_weights(weights: dict[int, float]) -> None:
    with pytest.raises(InvalidInputError, match="class_weight must have weights of at least zero, not all zero"):
        weights_of(None, weights, Y)


def test_groups_without_gaps_reach_a_splitter_as_they_were_given() -> None:
    clf = SimpleNamespace(class_weight=None)
    for groups in (["A", "B", "C", "A", "B", "C"], [2020, 2021, 2020, 2021, 2020, 2021]):
        found = metadata_of(clf, {"groups": groups}, Y).groups
        assert found is not None and found.tolist() == groups
