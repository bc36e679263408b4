"""The reranking loop: full batches, bounded memory, results that depend on nothing but their own image."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from hybridclf.reranking import loop as loop_module
from hybridclf.reranking import window as window_module
from hybridclf.reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from hybridclf.reranking.batches import Batch, Capacity, Evaluator, Pending, ReplayEvaluator
from hybridclf.reranking.evidence import Evidence, RerankResult
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.loop import Loop, Step
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window

FUSED = Fusion(prior_alone=0.9, prior_weight=0.5, error_weight=0.8, correlation=0.1, calibrated=True)
ALLOCATIONS = [FixedTrials(7), Staged((4, 2, 1), (2, 5, 12)), PairedTTest(0.05, 3, 12), Race(0.95, 12)]
TRIALS = 12

each_allocation = pytest.mark.parametrize("allocation", ALLOCATIONS, ids=lambda a: type(a).__name__)


class Deferred(ReplayEvaluator):
    """Recorded errors of a device that works by itself: remembers which batches were begun and not yet waited for."""

    def __init__(self, errors: np.ndarray) -> None:
        super().__init__(errors)
        self.under_way: list[Batch] = []
        self.most_under_way = 0

    def __call__(self, work: Batch) -> Pending:
        for other in self.under_way:
            assert not set(work.image.tolist()) & set(other.image.tolist())
        self.under_way.append(work)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        errors = super().__call__(work)

        def wait() -> np.ndarray:
            assert self.under_way.pop(0) is work  # first in, first out
            return errors()

        return wait


class Watched(ReplayEvaluator):
    """Recorded errors that remember what they were asked."""

    def __init__(self, errors: np.ndarray) -> None:
        super().__init__(errors)
        self.batches: list[Batch] = []
        self.slots: set[int] = set()

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        self.slots.update(slots.tolist())
        assert len(slots) == len(tasks)

    def __call__(self, work: Batch) -> Pending:
        self.batches.append(work)
        return super().__call__(work)

    @property
    def asked(self) -> list[tuple[int, int, int]]:
        """Every (image, trial, candidate) evaluated, in order."""
        return [
            (int(w.image[r]), int(w.trial[r]), int(c))
            for w in self.batches
            for r, c in zip(w.row, w.candidate, strict=True)
        ]


def make_loop(
    allocation: Allocation,
    fusion: Fusion,
    evaluate: Evaluator,
    capacity: Capacity,
    longest: int,
    ahead: int = 0,
    **more: Any,
) -> Loop:
    window = Window.for_batches(capacity, allocation.max_trials, longest, ahead)
    return Loop(allocation, fusion, evaluate, capacity, window, ahead, **more)


def make_tasks(n: int, longest: int, seed: int = 0) -> list[Task]:
    """n tasks with candidate lists of 1 to `longest` labels."""
    rng = np.random.default_rng(seed)
    tasks = []
    for i in range(n):
        k = int(rng.integers(1, longest + 1))
        labels = tuple(f"class {c}" for c in rng.permutation(longest)[:k])
        tasks.append(Task(i, labels, log_softmax(rng.normal(scale=1.5, size=k))))
    return tasks


def turn(loop: Loop) -> Step:
    """One batch, as a live server has it evaluated and judged."""
    work = loop.fill()
    return loop.record(work, loop.evaluate(work)())


def collect(steps: Iterator[Step]) -> dict[int, RerankResult]:
    results: dict[int, RerankResult] = {}
    for step in steps:
        for image, result in step.finished:
            assert image not in results
            results[image] = result
    return results


@cache
def in_a_plain_loop(
    allocation: Allocation, error_table: Callable[..., np.ndarray], n: int, longest: int, broken: int | None = None
) -> dict[int, RerankResult]:
    """Results of `make_tasks(n, longest)` in the plainest of loops, one image with a trial that is not finite."""
    errors = error_table(n, TRIALS, longest)
    if broken is not None:
        errors[broken, 1] = np.nan
    loop = make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(8, 40), longest)
    return collect(loop.run(make_tasks(n, longest)))


def same(a: RerankResult, b: RerankResult, rtol: float = 0.0) -> None:
    """Equal to the last bit, or to a tolerance."""
    for field in fields(RerankResult):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(x, y, rtol=rtol, err_msg=field.name)
        else:
            assert x == y, field.name


@each_allocation
def test_batches_are_full_while_images_wait(allocation: Allocation, error_table: Callable[..., np.ndarray]) -> None:
    tasks, capacity, longest = make_tasks(80, 9), Capacity(8, 40), 9
    evaluate = Watched(error_table(80, TRIALS, longest))
    waiting = iter(tasks)
    rest = len(tasks)

    def draw() -> Iterator[Task]:
        nonlocal rest
        for task in waiting:
            rest -= 1
            yield task

    n_full = 0
    loop = make_loop(allocation, FUSED, evaluate, capacity, longest)
    for step in loop.run(draw()):
        if rest and step.batch_rows:
            n_full += 1
            assert step.batch_rows == capacity.rows or step.batch_evaluations > capacity.evaluations - longest
    assert n_full > 10
    for work in evaluate.batches:
        assert len(work.slot) <= capacity.rows
        assert len(work.row) <= capacity.evaluations
        assert (np.diff(work.row) >= 0).all()
        assert np.array_equal(np.unique(work.row), np.arange(len(work.slot)))  # no row without a pair


@each_allocation
def test_nothing_is_evaluated_twice_or_after_it_was_dropped(
    allocation: Allocation, error_table: Callable[..., np.ndarray]
) -> None:
    tasks, errors = make_tasks(60, 9), error_table(60, TRIALS, 9)
    evaluate = Watched(errors)
    results = collect(make_loop(allocation, FUSED, evaluate, Capacity(8, 40), 9).run(tasks))
    asked = evaluate.asked
    assert len(asked) == len(set(asked))
    by_image: dict[int, dict[int, set[int]]] = {}
    for image, trial, candidate in asked:
        by_image.setdefault(image, {}).setdefault(trial, set()).add(candidate)
    for task in tasks:
        result, trials = results[task.image], by_image.get(task.image, {})
        assert list(trials) == list(range(result.rows))  # in the order of the plan
        left = set(range(len(task.candidates)))
        for trial in trials.values():
            assert trial <= left  # who was dropped stays out
            left = trial
        expected = np.full((result.rows, len(task.candidates)), np.nan, dtype=np.float32)
        for trial, candidates in trials.items():
            for c in candidates:
                expected[trial, c] = errors[task.image, trial, c]
        np.testing.assert_array_equal(result.evidence, expected)


@each_allocation
def test_costs_add_up(allocation: Allocation, error_table: Callable[..., np.ndarray]) -> None:
    evaluate = Watched(error_table(50, TRIALS, 6))
    steps = list(make_loop(allocation, FUSED, evaluate, Capacity(5, 17), 6).run(make_tasks(50, 6)))
    results = collect(iter(steps))
    n_rows, n_pairs = (sum(len(getattr(w, name)) for w in evaluate.batches) for name in ("slot", "row"))
    assert sum(step.batch_rows for step in steps) == sum(r.rows for r in results.values()) == n_rows
    assert sum(step.batch_evaluations for step in steps) == sum(r.evaluations for r in results.values()) == n_pairs
    for result in results.values():
        assert result.evaluations == np.isfinite(result.evidence).sum()
        assert result.evidence.shape == (result.rows, len(result.candidates))


@each_allocation
def test_results_depend_on_their_own_image_alone(
    allocation: Allocation, error_table: Callable[..., np.ndarray]
) -> None:
    """But for rounding, whatever the order, the companions (longer candidate lists among them) and the batch size."""
    tasks, errors = make_tasks(20, 5) + make_tasks(40, 33)[20:], error_table(40, TRIALS, 33)
    together = collect(make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(64, 600), 33).run(tasks))
    assert sorted(together) == list(range(40))
    shuffled = [tasks[i] for i in np.random.default_rng(0).permutation(40)]
    for capacity in (Capacity(1, 1), Capacity(3, 50), Capacity(100, 35)):
        for image, result in collect(
            make_loop(allocation, FUSED, ReplayEvaluator(errors), capacity, 33).run(shuffled)
        ).items():
            same(result, together[image], rtol=1e-12)
    for task in tasks:
        alone = make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(16, 100), len(task.candidates))
        same(collect(alone.run([task]))[task.image], together[task.image], rtol=1e-12)


@each_allocation
def test_tasks_are_drawn_as_room_becomes_free(allocation: Allocation, error_table: Callable[..., np.ndarray]) -> None:
    drawn = finished = 0

    def draw() -> Iterator[Task]:
        nonlocal drawn
        for task in make_tasks(60, 6):
            drawn += 1
            yield task

    evaluate = Watched(error_table(60, TRIALS, 6))
    loop = make_loop(allocation, FUSED, evaluate, Capacity(8, 40), 6)
    steps = loop.run(draw())
    assert drawn == 0
    for step in steps:
        assert drawn - finished <= loop.window.n_slots == 8
        finished += len(step.finished)
    assert drawn == finished == 60
    assert evaluate.slots == set(range(8))
    assert loop.free == loop.window.n_slots


def test_window_is_bounded_by_memory(monkeypatch: pytest.MonkeyPatch, error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(30, TRIALS, 6)
    wide = collect(
        make_loop(FixedTrials(TRIALS), FUSED, ReplayEvaluator(errors), Capacity(16, 96), 6).run(make_tasks(30, 6))
    )
    monkeypatch.setattr(window_module, "WINDOW_BYTES", 3 * 4 * TRIALS * 6)  # three tables of 12 float32 trials x 6
    evaluate = Watched(errors)
    narrow = make_loop(FixedTrials(TRIALS), FUSED, evaluate, Capacity(16, 96), 6)
    assert narrow.window.n_slots == 3
    for image, result in collect(narrow.run(make_tasks(30, 6))).items():
        same(result, wide[image])
    assert max(len(w.slot) for w in evaluate.batches) == 16  # three images still fill a batch of 16 rows
    monkeypatch.setattr(window_module, "WINDOW_BYTES", 1)
    assert make_loop(FixedTrials(TRIALS), FUSED, evaluate, Capacity(16, 96), 6).window.n_slots == 1


def test_an_image_that_is_done_makes_room_at_once(error_table: Callable[..., np.ndarray]) -> None:
    """One slow image does not hold up the others."""
    errors = error_table(41, 40, 2)
    errors[1:, :, 1] += 50  # clear from the first trial
    errors[0, :, 1] = errors[0, :, 0]  # never clear
    tasks = [Task(i, ("a", "b"), np.log([0.5, 0.5])) for i in range(41)]
    order = [image for step in make_loop(Race(0.99, 40), FUSED, ReplayEvaluator(errors), Capacity(2, 4), 2).run(tasks)
             for image, _ in step.finished]  # fmt: skip
    assert order == [*range(1, 40), 0, 40] or order == [*range(1, 41), 0]


@each_allocation
@pytest.mark.parametrize(
    "capacity",
    [Capacity(8, 7, True), Capacity(64, 32, True), pytest.param(Capacity(3, 1, True), marks=pytest.mark.slow)],
)
def test_rows_that_go_on_in_the_next_batch_fill_it_and_change_nothing(
    capacity: Capacity, allocation: Allocation, error_table: Callable[..., np.ndarray]
) -> None:
    tasks, errors = make_tasks(80, 9), error_table(80, TRIALS, 9)
    whole = in_a_plain_loop(allocation, error_table, 80, 9)
    evaluate, waiting, steps = Watched(errors), list(tasks), []

    def draw() -> Iterator[Task]:
        while waiting:
            yield waiting.pop()

    n_full = 0
    for step in make_loop(allocation, FUSED, evaluate, capacity, 9).run(draw()):
        steps.append(step)
        if waiting and step.batch_evaluations:
            n_full += 1
            assert step.batch_evaluations == capacity.evaluations
    assert n_full > 10
    assert len(evaluate.asked) == len(set(evaluate.asked))
    results = collect(iter(steps))
    for image, result in results.items():
        same(result, whole[image])
    assert sum(step.batch_rows for step in steps) == sum(r.rows for r in results.values())
    assert sum(step.batch_evaluations for step in steps) == sum(r.evaluations for r in results.values())


@each_allocation
@pytest.mark.parametrize(("ahead", "arrivals"), [(1, 256), (1, 3), (2, 5)])
@pytest.mark.parametrize("capacity", [Capacity(8, 40), Capacity(8, 7, splits=True), Capacity(16, 600)])
def test_batches_begun_ahead_change_no_result(
    capacity: Capacity,
    ahead: int,
    arrivals: int,
    allocation: Allocation,
    error_table: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_module, "ARRIVALS", arrivals)
    tasks, errors = make_tasks(80, 9), error_table(80, TRIALS, 9)
    errors[3, 1] = np.nan
    waited = in_a_plain_loop(allocation, error_table, 80, 9, broken=3)
    evaluate = Deferred(errors)
    results = collect(make_loop(allocation, FUSED, evaluate, capacity, 9, ahead).run(tasks))
    assert evaluate.most_under_way == 1 + ahead and not evaluate.under_way
    assert results.keys() == waited.keys() and results[3].stopped_by == "fallback"
    np.testing.assert_array_equal(results[3].posterior, waited[3].posterior)  # its cost depends on its last batch
    for image in results.keys() - {3}:
        same(results[image], waited[image])


@pytest.mark.parametrize("capacity", [Capacity(16, 600), Capacity(16, 32, splits=True)])
def test_only_full_batches_are_begun_ahead(capacity: Capacity, error_table: Callable[..., np.ndarray]) -> None:
    """The last images share batches, rather than each having its own, padded."""
    evaluate = Deferred(error_table(40, TRIALS, 9))
    loop = make_loop(PairedTTest(0.01, 3, TRIALS), FUSED, evaluate, capacity, 9, ahead=1)
    begun: list[tuple[int, float]] = []
    collect(_noting(begun, evaluate, loop).run(make_tasks(40, 9)))
    assert any(others for others, _ in begun)
    assert all(share >= loop_module.FULL for others, share in begun if others)
    assert any(share < loop_module.FULL for others, share in begun if not others)


def test_a_full_batch_does_not_wait_until_all_places_are_taken(
    error_table: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that is full before it has all the pairs it might have."""
    monkeypatch.setattr(loop_module, "ARRIVALS", 2)
    evaluate = Watched(error_table(30, TRIALS, 9))
    tasks = [Task(i, tuple(range(9)), np.full(9, -math.log(9))) for i in range(30)]
    admitted: list[int] = []
    for step in make_loop(FixedTrials(TRIALS), FUSED, evaluate, Capacity(16, 40), 9).run(tasks):
        if evaluate.batches:
            break
        admitted += step.images.tolist()
    assert len(admitted) == 2 and len(evaluate.batches[0].row) == 4 * 9


def test_an_image_that_a_batch_has_cannot_be_evicted(error_table: Callable[..., np.ndarray]) -> None:
    loop = make_loop(
        FixedTrials(TRIALS), FUSED, ReplayEvaluator(error_table(9, TRIALS, 5)), Capacity(8, 40), 5, ahead=1
    )
    steps = loop.run([Task(i, tuple(range(5)), np.full(5, -math.log(5))) for i in range(9)])
    while not next(steps).batch_evaluations:
        pass
    with pytest.raises(AssertionError, match="errors of an evicted image"):
        loop.evict(range(9))


def _noting(begun: list[tuple[int, float]], evaluate: Deferred, loop: Loop) -> Loop:
    """The loop; of every batch it notes how many were under way when it began, and how full it is."""

    class Noting(Deferred):
        def __call__(self, work: Batch) -> Pending:
            begun.append((len(self.under_way), loop.capacity.fullness(work)))
            return super().__call__(work)

    loop.evaluate = Noting(evaluate.errors)
    return loop


def test_batches_of_pairs_are_full_to_the_last_one(error_table: Callable[..., np.ndarray]) -> None:
    evaluate = Watched(error_table(16, TRIALS, 5))
    tasks = [Task(i, tuple(range(5)), np.full(5, -math.log(5))) for i in range(16)]
    collect(make_loop(FixedTrials(TRIALS), FUSED, evaluate, Capacity(16, 32, splits=True), 5).run(tasks))
    n_pairs = 16 * TRIALS * 5
    assert [len(w.row) for w in evaluate.batches] == [32] * (n_pairs // 32) + [n_pairs % 32] * (n_pairs % 32 > 0)


def test_one_row_is_allowed_whatever_its_pairs(error_table: Callable[..., np.ndarray]) -> None:
    evaluate = Watched(error_table(3, 2, 10))
    tasks = [Task(i, tuple(range(10)), np.full(10, -math.log(10))) for i in range(3)]
    results = collect(make_loop(FixedTrials(2), FUSED, evaluate, Capacity(4, 3), 10).run(tasks))
    assert [(len(w.slot), len(w.row)) for w in evaluate.batches] == [(1, 10)] * 6
    assert all(r.evaluations == 20 for r in results.values())


@each_allocation
def test_a_single_candidate_costs_nothing(allocation: Allocation, error_table: Callable[..., np.ndarray]) -> None:
    evaluate = Watched(error_table(1, TRIALS, 1))
    results = collect(
        make_loop(allocation, FUSED, evaluate, Capacity(4, 8), 1).run([Task(0, ("cat",), np.array([-3.0]))])
    )
    assert evaluate.batches == []
    result = results[0]
    assert (result.ranking, result.evaluations, result.rows) == (("cat",), 0, 0)
    assert result.posterior.tolist() == [1.0]
    assert result.stopped_by == "confident"


def even_tasks() -> list[Task]:
    """Twenty tasks of four candidates, with a prior that is nearly even."""
    rng = np.random.default_rng(0)
    return [Task(i, tuple("abcd"), np.log(rng.dirichlet(np.full(4, 50)))) for i in range(20)]


@cache
def without_accidents(allocation: Allocation, error_table: Callable[..., np.ndarray]) -> dict[int, RerankResult]:
    """Their results from errors that are all finite."""
    errors = error_table(20, TRIALS, 4)
    return collect(make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(6, 20), 4).run(even_tasks()))


@each_allocation
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["one candidate", "all candidates"])
@pytest.mark.parametrize("capacity", [Capacity(6, 20), Capacity(6, 3, splits=True)])
def test_errors_that_are_not_finite_fall_back_to_tier_1(
    capacity: Capacity, allocation: Allocation, value: float, which: str, error_table: Callable[..., np.ndarray]
) -> None:
    tasks, clean = even_tasks(), without_accidents(allocation, error_table)
    broken = error_table(20, TRIALS, 4)
    broken[3, 1, 2 if which == "one candidate" else slice(None)] = value
    results = collect(make_loop(allocation, FUSED, ReplayEvaluator(broken), capacity, 4).run(tasks))

    hit = results.pop(3)
    assert hit.stopped_by == "fallback"
    prior = softmax(FUSED.prior_alone * tasks[3].log_prior)
    np.testing.assert_allclose(hit.posterior, prior)
    assert hit.ranking == tuple("abcd"[i] for i in np.argsort(-prior))
    assert 0 <= hit.evaluations - 4 * hit.rows < (4 if capacity.splits else 1)  # of a trial that was cut short
    for image, result in results.items():
        same(result, clean[image])


def test_an_error_that_is_not_finite_in_the_last_trial_still_falls_back(error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(3, 4, 3)
    errors[1, 3, 0] = np.nan
    tasks = [Task(i, tuple("abc"), np.log([0.2, 0.5, 0.3])) for i in range(3)]
    for allocation in (FixedTrials(4), Race(0.9999, 4)):
        results = collect(
            make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(9, 27), 3).run(tasks)
        )  # each image once
        assert [results[i].stopped_by == "fallback" for i in range(3)] == [False, True, False]
        assert results[1].ranking == ("b", "c", "a")


def test_a_prior_of_zero_can_be_overruled_by_evidence(error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(1, 5, 3)
    errors[:, :, 1] -= 5000
    tasks = [Task(0, ("a", "b", "c"), np.array([0.0, -np.inf, -np.inf]))]
    result = collect(make_loop(FixedTrials(5), FUSED, ReplayEvaluator(errors), Capacity(4, 12), 3).run(tasks))[0]
    assert np.isfinite(result.posterior).all()
    assert result.ranking[0] == "b"


def test_ties_go_to_the_candidate_that_was_listed_first() -> None:
    errors = np.ones((1, 4, 3), dtype=np.float32)
    tasks = [Task(0, ("z", "m", "a"), np.full(3, -math.log(3)))]
    for allocation in (FixedTrials(4), Staged((2,), (4,)), PairedTTest(0.05, 2, 4), Race(0.9, 4)):
        result = collect(make_loop(allocation, Fusion(), ReplayEvaluator(errors), Capacity(4, 12), 3).run(tasks))[0]
        assert result.ranking[0] == "z"


def test_steps_show_the_race_as_it_goes(error_table: Callable[..., np.ndarray]) -> None:
    tasks, errors = make_tasks(30, 6), error_table(30, TRIALS, 6)
    trials_of: dict[int, list[int]] = {}
    for step in make_loop(Race(0.99, TRIALS), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 6).run(tasks):
        evidence = step.evidence
        assert len(step.images) == len(evidence.posterior) == len(step.evaluations)
        np.testing.assert_allclose(evidence.posterior.sum(axis=1), 1)
        for i, image in enumerate(step.images.tolist()):
            n, k = int(evidence.n_trials[i]), len(tasks[image].candidates)
            trials_of.setdefault(image, []).append(n)
            assert evidence.n_candidates[i] == k
            seen = errors[image, :n].sum(axis=0, dtype=float)
            alive = evidence.alive[i]
            np.testing.assert_allclose(evidence.sums[i][alive], seen[alive])
            if n:
                np.testing.assert_allclose(evidence.mean_errors[i][alive], seen[alive] / n)
            assert np.isposinf(evidence.mean_errors[i][~alive]).all()
    assert all(seen == list(range(len(seen))) for seen in trials_of.values())  # judged after every trial
    assert sorted(trials_of) == list(range(30))


@each_allocation
@pytest.mark.parametrize("capacity", [Capacity(4, 20), Capacity(4, 7, splits=True)])
def test_steps_that_are_kept_show_what_was_known_then(
    allocation: Allocation, capacity: Capacity, error_table: Callable[..., np.ndarray]
) -> None:
    """Places are used again, and errors come in behind those that a step knew."""
    tasks, errors = make_tasks(30, 6), error_table(30, TRIALS, 6)
    loop, then = make_loop(allocation, FUSED, ReplayEvaluator(errors), capacity, 6), []
    reused = 0
    for step in loop.run(tasks):
        evidence = step.evidence
        reference = np.zeros(len(step.images), dtype=int)
        then.append((step, evidence.errors, *evidence.differences(reference), evidence.posterior.copy()))
        reused += len(step.finished)
    assert reused == 30 > loop.window.n_slots
    for step, table, mean, variance, posterior in then:
        evidence = step.evidence
        np.testing.assert_array_equal(evidence.errors, table)
        np.testing.assert_array_equal(evidence.posterior, posterior)
        later = evidence.differences(np.zeros(len(step.images), dtype=int))
        np.testing.assert_allclose(later, (mean, variance), atol=1e-9)
        for row, image, n in zip(table, step.images, evidence.n_trials, strict=True):
            k, seen = len(tasks[image].candidates), ~np.isnan(row)
            np.testing.assert_array_equal(row[seen], errors[image, : len(row)][seen])
            assert seen[:n, :k].any(axis=1).all() and not seen[n:].any() and not seen[:, k:].any()


def test_steps_that_are_not_kept_are_not_copied(
    monkeypatch: pytest.MonkeyPatch, error_table: Callable[..., np.ndarray]
) -> None:
    copied = []
    monkeypatch.setattr(Evidence, "_keep", lambda self: copied.append(self))
    loop = make_loop(Race(0.99, TRIALS), FUSED, ReplayEvaluator(error_table(30, TRIALS, 6)), Capacity(4, 20), 6)
    assert sum(len(step) for step in map(lambda step: step.finished, loop.run(make_tasks(30, 6)))) == 30
    assert not copied


def test_no_tasks_no_steps() -> None:
    assert list(make_loop(Race(), FUSED, ReplayEvaluator(np.zeros((0, 1, 1))), Capacity(4, 4), 1).run([])) == []


# --- what a live server asks of it ------------------------------------------------------------------------------------


@each_allocation
@pytest.mark.parametrize("bound", [0, 1, 5, 13, 40])
@pytest.mark.parametrize("capacity", [Capacity(8, 40), Capacity(8, 7, splits=True)])
def test_an_image_costs_no_more_than_its_bound(
    capacity: Capacity, allocation: Allocation, bound: int, error_table: Callable[..., np.ndarray]
) -> None:
    tasks, errors = make_tasks(60, 6), error_table(60, TRIALS, 6)
    free = in_a_plain_loop(allocation, error_table, 60, 6)
    bounded = [replace(task, max_evaluations=bound) if task.image % 2 else task for task in tasks]
    results = collect(make_loop(allocation, FUSED, ReplayEvaluator(errors), capacity, 6).run(bounded))
    for task in bounded:
        result, k = results[task.image], len(task.candidates)
        if task.max_evaluations is None or free[task.image].evaluations <= bound:
            same(result, free[task.image])
        else:
            assert result.evaluations <= bound
            assert result.stopped_by in ("budget", allocation.stopped_by)
            if isinstance(allocation, FixedTrials):
                assert (result.evaluations, result.stopped_by) == (bound // k * k, "budget")
        if not result.evaluations:
            np.testing.assert_allclose(result.posterior, softmax(FUSED.prior_alone * task.log_prior))


class Tripled(ReplayEvaluator):
    """As if every class had three prompts."""

    n_prompts = 3


@pytest.mark.parametrize("capacity", [Capacity(8, 40), Capacity(8, 7, splits=True)])
def test_a_bound_counts_every_prompt(capacity: Capacity, error_table: Callable[..., np.ndarray]) -> None:
    tasks = [replace(task, max_evaluations=40) for task in make_tasks(8, 6, seed=3)]
    loop = make_loop(FixedTrials(TRIALS), FUSED, Tripled(error_table(8, TRIALS, 6)), capacity, 6)
    for result in collect(loop.run(tasks)).values():
        per_trial = 3 * len(result.candidates)
        assert (result.evaluations, result.stopped_by) == (40 // per_trial * per_trial, "budget")


@each_allocation
@pytest.mark.parametrize("capacity", [Capacity(8, 40), Capacity(8, 7, splits=True)])
def test_the_best_answer_so_far_is_what_the_evidence_says(
    capacity: Capacity, allocation: Allocation, error_table: Callable[..., np.ndarray]
) -> None:
    """Errors of a trial that has begun, and not all of them yet, are spent but no evidence."""
    tasks, errors = make_tasks(8, 6, seed=3), error_table(8, TRIALS, 6)
    undisturbed = collect(make_loop(allocation, FUSED, ReplayEvaluator(errors), Capacity(8, 40), 6).run(tasks))
    loop = make_loop(allocation, FUSED, ReplayEvaluator(errors), capacity, 6)
    results = dict(loop.admit(tasks).finished)
    seen = 0
    while loop.free < loop.window.n_slots:
        for task in tasks:
            if task.image in results:
                continue
            best, k = loop.best(task.image, "deadline"), len(task.candidates)
            assert best.stopped_by == "deadline"
            begun = best.evaluations - np.isfinite(best.evidence).sum()
            assert 0 <= begun < (k if capacity.splits else 1)
            np.testing.assert_array_equal(best.evidence, undisturbed[task.image].evidence[: best.rows])
            np.testing.assert_allclose(best.posterior.sum(), 1)
            after = undisturbed[task.image].evidence[: best.rows + 1]
            if len(after) > best.rows and np.isfinite(after).all():  # nothing dropped yet: the fusion of all seen
                sums = best.evidence.sum(axis=0, dtype=float)[None]
                expected = FUSED.posterior(task.log_prior[None], sums, np.array([best.rows]))[0]
                np.testing.assert_allclose(best.posterior, expected)
                assert best.ranking[0] == task.candidates[expected.argmax()]
                assert len(best.posterior) == k
                seen += best.rows > 0
        results |= turn(loop).finished
    assert seen
    for image, result in results.items():
        same(result, undisturbed[image])


def test_evicted_images_make_room_and_change_nothing(error_table: Callable[..., np.ndarray]) -> None:
    tasks, errors = make_tasks(30, 6), error_table(30, TRIALS, 6)
    undisturbed = collect(make_loop(FixedTrials(7), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 6).run(tasks))
    loop = make_loop(FixedTrials(7), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 6)
    results = dict(loop.admit(tasks[:8]).finished)
    gone = [task.image for task in tasks[:8] if task.image not in results][:3]
    work = loop.fill()
    step = loop.record(work, loop.evaluate(work)())
    results |= step.finished
    free = loop.free
    loop.evict([*gone, 999])
    assert loop.free == free + len(set(gone) - set(results))
    results |= collect(loop.run(tasks[8:]))
    assert set(results) == set(range(30)) - set(gone)
    for image, result in results.items():
        same(result, undisturbed[image])


def test_a_slot_forgets_the_trial_that_an_evicted_image_had_begun(error_table: Callable[..., np.ndarray]) -> None:
    tasks, errors = make_tasks(30, 6), error_table(30, TRIALS, 6)
    undisturbed = collect(make_loop(FixedTrials(7), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 6).run(tasks))
    loop = make_loop(FixedTrials(7), FUSED, ReplayEvaluator(errors), Capacity(2, 5, splits=True), 6)
    results: dict[int, RerankResult] = {}
    evicted, waiting = set(), list(tasks)
    while waiting or loop.free < loop.window.n_slots:
        if loop.free and waiting:
            some, waiting = waiting[: loop.free], waiting[loop.free :]
            results |= loop.admit(some).finished
            continue
        results |= turn(loop).finished
        cut = [t for t in tasks if t.image in _under_way(loop) and _has_begun(loop.best(t.image, "deadline"))]
        if cut and len(evicted) < 5:
            evicted.add(cut[0].image)
            loop.evict([cut[0].image])
    assert len(evicted) == 5 and set(results) == set(range(30)) - evicted
    for image, result in results.items():
        same(result, undisturbed[image])


def _under_way(loop: Loop) -> set[int]:
    return set(loop.window.image[loop.window.occupied].tolist())


def _has_begun(result: RerankResult) -> bool:
    """A trial of which some errors are in."""
    return result.evaluations > np.isfinite(result.evidence).sum()


@each_allocation
def test_what_a_prior_settles_is_told_beforehand(
    allocation: Allocation, error_table: Callable[..., np.ndarray]
) -> None:
    tasks, errors = make_tasks(60, 6), error_table(60, TRIALS, 6)
    loop = make_loop(allocation, replace(FUSED, harmed=("class 3",)), ReplayEvaluator(errors), Capacity(8, 40), 6)
    results = collect(loop.run(tasks))
    reasons = set()
    for task in tasks:
        at_once, result = loop.settled(task), results[task.image]
        assert (at_once is not None) == (result.rows == 0)
        if at_once is not None:
            reasons.add(at_once.stopped_by)
            assert (at_once.ranking, at_once.evaluations, at_once.rows) == (result.ranking, 0, 0)
            assert at_once.stopped_by == result.stopped_by
            np.testing.assert_allclose(at_once.posterior, result.posterior, rtol=1e-12)
            assert at_once.evidence.shape == (0, len(task.candidates))
    assert reasons == {"confident", "off"}


# --- images that tier 1 answers ---------------------------------------------------------------------------------------


def test_an_image_beyond_the_usual_errors_is_novel(error_table: Callable[..., np.ndarray]) -> None:
    tasks, errors = make_tasks(30, 5), error_table(30, TRIALS, 5)
    odd = np.arange(30) % 3 == 0
    errors[odd] += 100
    ceilings = np.append(np.inf, 20.0 * np.arange(1, TRIALS + 1))  # errors are about 10 a trial
    plain = collect(make_loop(FixedTrials(TRIALS), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 5).run(tasks))
    loop = make_loop(FixedTrials(TRIALS), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 5, ceilings=ceilings)
    for i, result in collect(loop.run(tasks)).items():
        if len(tasks[i].candidates) == 1 or not odd[i]:
            same(result, plain[i])
            continue
        assert result.stopped_by == "novel"
        np.testing.assert_allclose(result.posterior, softmax(tasks[i].log_prior))
        assert result.evaluations == TRIALS * len(tasks[i].candidates)


def test_a_novel_image_costs_one_trial_of_a_race(error_table: Callable[..., np.ndarray]) -> None:
    task, errors = Task(0, ("a", "b"), np.log([0.5, 0.5])), 1000 + error_table(1, TRIALS, 2)
    ceilings = np.append(np.inf, np.full(TRIALS, 500.0))
    loop = make_loop(Race(0.99, TRIALS), FUSED, ReplayEvaluator(errors), Capacity(8, 40), 2, ceilings=ceilings)
    (result,) = collect(loop.run([task])).values()
    assert (result.stopped_by, result.rows, result.ranking) == ("novel", 1, ("a", "b"))


@pytest.mark.parametrize("fusion", [replace(FUSED, pays=False), replace(FUSED, harmed=("class 1", "class 3"))])
def test_tier_2_is_not_asked_where_it_does_not_pay(fusion: Fusion, error_table: Callable[..., np.ndarray]) -> None:
    tasks, evaluate = make_tasks(40, 5), Watched(error_table(40, TRIALS, 5))
    results = collect(make_loop(Race(0.999, TRIALS), fusion, evaluate, Capacity(8, 40), 5).run(tasks))
    for i, result in results.items():
        leader = tasks[i].candidates[int(np.argmax(tasks[i].log_prior))]
        assert (result.stopped_by == "off") == (not fusion.pays or leader in fusion.harmed)
        if result.stopped_by == "off":
            assert result.evaluations == 0
            np.testing.assert_allclose(result.posterior, softmax(fusion.prior_alone * tasks[i].log_prior))
    assert {image for image, _, _ in evaluate.asked} <= {i for i, r in results.items() if r.stopped_by != "off"}


def test_a_model_without_a_finite_error_is_soon_asked_no_more(error_table: Callable[..., np.ndarray]) -> None:
    tasks = [Task(i, tuple("abc"), np.log([0.5, 0.3, 0.2])) for i in range(500)]
    evaluate = Watched(np.full_like(error_table(500, TRIALS, 3), np.nan))
    results = collect(make_loop(Race(0.99, TRIALS), FUSED, evaluate, Capacity(8, 24), 3).run(tasks))
    assert len({image for image, _, _ in evaluate.asked}) == loop_module.GIVE_UP_AFTER
    assert [results[i].stopped_by for i in range(500)] == ["fallback"] * 500
    assert {r.ranking for r in results.values()} == {tuple("abc")}
    assert sum(r.evaluations for r in results.values()) == len(evaluate.asked)


def test_broken_images_do_not_stop_the_others(error_table: Callable[..., np.ndarray]) -> None:
    tasks = [Task(i, tuple("abc"), np.log([0.5, 0.3, 0.2])) for i in range(100)]
    errors = error_table(100, TRIALS, 3)
    errors[20:90] = np.nan
    results = collect(make_loop(Race(0.99, TRIALS), FUSED, ReplayEvaluator(errors), Capacity(8, 24), 3).run(tasks))
    assert sorted(i for i, r in results.items() if r.stopped_by == "fallback") == list(range(20, 90))
