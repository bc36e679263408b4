"""Who breaks a batch is found out, and pays alone."""

from collections.abc import Callable

import numpy as np
import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.live.fault_isolation import FAILING, FaultIsolation
from hybridclf.reranking.allocation import FixedTrials
from hybridclf.reranking.batches import Batch, Capacity, Pending, ReplayEvaluator
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.loop import Loop
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window


class Breaking(ReplayEvaluator):
    """Recorded errors; a batch with one of these images in it raises."""

    def __init__(self, errors: np.ndarray, poison: set[int]) -> None:
        super().__init__(errors)
        self.poison = poison

    def __call__(self, work: Batch) -> Pending:
        if found := self.poison.intersection(work.image.tolist()):
            raise ArithmeticError(f"image {min(found)}")
        return super().__call__(work)


@pytest.mark.parametrize("poison", [set(), {4}, {0, 9, 11}, set(range(12))])
def test_only_the_images_that_raise_fall_back(poison: set[int], error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(12, 6, 5)
    tasks = [Task(i, tuple("abcde"[: 2 + i % 4]), np.zeros(2 + i % 4)) for i in range(12)]
    guarded = FaultIsolation(Breaking(errors, poison))
    loops = (
        Loop(FixedTrials(6), Fusion(), evaluate, Capacity(10, 33), Window(10, 6, 5))
        for evaluate in (guarded, ReplayEvaluator(errors))
    )
    found, clean = (dict(done for step in loop.run(tasks) for done in step.finished) for loop in loops)
    assert {i for i, result in found.items() if result.stopped_by == "fallback"} == poison
    assert {i: str(error) for i, error in guarded.failures.items()} == {i: f"image {i}" for i in poison}
    for i in set(range(12)) - poison:
        np.testing.assert_array_equal(found[i].evidence, clean[i].evidence)
        assert found[i].ranking == clean[i].ranking


def one_trial(*images: int) -> Batch:
    """A batch of the first trial and the first candidate of these images."""
    first = np.zeros(len(images), dtype=int)
    return Batch(np.arange(len(images)), np.array(images), first, np.arange(len(images)), first)


def test_it_is_failing_while_batch_after_batch_is_lost(error_table: Callable[..., np.ndarray]) -> None:
    breaking = Breaking(error_table(12, 6, 5), {1, 2, 3})
    guarded = FaultIsolation(breaking)

    def lose(batches: int) -> None:
        for _ in range(batches):
            assert np.isnan(guarded(one_trial(1, 2, 3))()).all()

    lose(FAILING - 1)
    assert guarded.streak.seconds is None
    lose(1)
    assert guarded.streak.seconds is not None
    assert np.isnan(guarded(one_trial(3, 4))()).tolist() == [True, False]  # one that succeeds is enough
    assert guarded.streak.seconds is None
    lose(FAILING - 1)
    assert guarded.streak.seconds is None


def test_images_that_are_none_do_not_make_it_fail(error_table: Callable[..., np.ndarray]) -> None:
    class Refusing(ReplayEvaluator):
        def __call__(self, work: Batch) -> Pending:
            raise InvalidInputError("no image")

    guarded = FaultIsolation(Refusing(error_table(12, 6, 5)))
    for _ in range(2 * FAILING):
        guarded(one_trial(0, 1))()
    assert guarded.streak.seconds is None
