"""Tasks that are refused, and the answer where nothing was evaluated."""

import re
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from hybridclf.errors import InvalidInputError
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.tasks import Task, as_log_prior, check_task, check_tasks, prior_result


@pytest.mark.parametrize(
    ("candidates", "log_prior", "message"),
    [
        ((), [], "no candidates"),
        (("a", "b", "a"), [0.0, 0.0, 0.0], "twice"),
        (("a", "b"), [0.0], r"shape \(1,\)"),
        (("a", "b"), [[0.0, 0.0]], "shape"),
        (("a", "b"), [0.0, np.nan], "finite number or -inf"),
        (("a", "b"), [0.0, np.inf], "finite number or -inf"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(candidates: tuple[str, ...], log_prior: list, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"image 5.*{message}"):
        check_task(Task(5, candidates, np.array(log_prior)))
    others = [Task(i, ("a", "b"), np.array([0.0, -np.inf])) for i in range(3)]
    with pytest.raises(InvalidInputError, match=f"image 5.*{message}"):
        check_tasks([*others, Task(5, candidates, np.array(log_prior))])
    check_tasks(others)
    check_tasks([])


def test_a_prior_of_minus_infinity_is_a_prior() -> None:
    task = Task(0, ("a", "b"), np.array([0.0, -np.inf]))
    assert check_task(task) is task


@pytest.mark.parametrize("bound", [-1, 2.5, 2.0, True, "3", np.nan, np.inf, np.float64(2), [3]])
def test_a_bound_that_is_no_whole_number_is_refused(bound: Any) -> None:
    task = Task(0, ("a",), np.zeros(1), max_evaluations=bound)
    message = "max_evaluations must be a whole number of at least 0, got"
    with pytest.raises(InvalidInputError, match=f"the image: {message} {re.escape(repr(bound))}"):
        check_task(task, "the image")
    with pytest.raises(InvalidInputError, match=f"image 0: {message}"):
        check_tasks([task])


@pytest.mark.parametrize("bound", [None, 0, 7, np.int32(7), 10**30])
def test_a_bound_that_is_a_whole_number_is_taken(bound: Any) -> None:
    check_tasks([task := Task(0, ("a",), np.zeros(1), max_evaluations=bound)])
    assert check_task(task) is task


@pytest.mark.parametrize("values", [["a", "b"], [[0.0], [0.0, 1.0]], [None, {}], object()])
def test_a_prior_that_is_no_numbers_is_refused(values: Any) -> None:
    with pytest.raises(InvalidInputError, match="image 3: a log prior must be one number per candidate"):
        as_log_prior(values, "image 3")


@pytest.mark.parametrize("fusion", [Fusion(), Fusion(prior_alone=0.5, prior_weight=0.3, calibrated=True)])
def test_where_nothing_was_evaluated_tier_1_answers(fusion: Fusion) -> None:
    task = Task(0, ("a", "b", "c", "d"), np.log([0.2, 0.5, 0.3, 1e-300]) - [0, 0, 0, np.inf])
    result = prior_result(task, fusion, "deadline")
    np.testing.assert_allclose(result.posterior, softmax(fusion.prior_alone * np.maximum(task.log_prior, -1000)))
    assert result.ranking == ("b", "c", "a", "d")
    assert (result.evaluations, result.rows, result.stopped_by) == (0, 0, "deadline")
    assert result.evidence.shape == (0, 4)
