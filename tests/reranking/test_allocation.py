"""Allocations, run through the loop on recorded errors, against brute-force lines straight from the papers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import ttest_rel

from hybridclf.errors import InvalidInputError, InvalidTypeError
from hybridclf.reranking.allocation import PRESETS, Allocation, FixedTrials, PairedTTest, Race, Staged
from hybridclf.reranking.batches import Capacity, ReplayEvaluator
from hybridclf.reranking.evidence import RerankResult
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.loop import Loop
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window

FUSED = Fusion(prior_alone=0.8, prior_weight=0.6, error_weight=0.7, correlation=0.1, calibrated=True)


def rerank(
    allocation: Allocation,
    errors: np.ndarray,
    log_prior: np.ndarray | None = None,
    fusion: Fusion | None = None,
    capacity: Capacity | None = None,
) -> list[RerankResult]:
    """Results `[n]` on recorded errors `[n, T, K]`; candidates are the numbers 0 … K - 1."""
    n, _, k = errors.shape
    prior = np.full((n, k), -math.log(k)) if log_prior is None else log_prior
    capacity = capacity or Capacity(7, 40)
    window = Window.for_batches(capacity, allocation.max_trials, k)
    loop = Loop(allocation, fusion or Fusion(), ReplayEvaluator(errors), capacity, window)
    results = {}
    for step in loop.run(Task(i, tuple(range(k)), prior[i]) for i in range(n)):
        results.update(step.finished)
    return [results[i] for i in range(n)]


@dataclass
class Outcome:
    """What a brute-force line says of one image."""

    winner: int
    evaluations: int
    trials: int
    seen: dict[int, list[float]]

    def check(self, result: RerankResult) -> None:
        """The loop came to the same answer, at the same cost, on the same evidence."""
        assert result.ranking[0] == self.winner
        assert result.evaluations == self.evaluations
        assert result.rows == self.trials
        for c, errors in self.seen.items():
            column = result.evidence[:, c]
            np.testing.assert_array_equal(column[: len(errors)], np.float32(errors))
            assert np.isnan(column[len(errors) :]).all()


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# --- FixedTrials ------------------------------------------------------------------------------------------------------


def algorithm_1(errors: np.ndarray, n: int) -> Outcome:
    """Algorithm 1 of arXiv 2303.16203 on one image's errors `[T, K]`."""
    seen = {c: errors[:n, c].tolist() for c in range(errors.shape[1])}
    return Outcome(min(seen, key=lambda c: mean(seen[c])), n * len(seen), n, seen)


@pytest.mark.parametrize("n", [1, 2, 13])
def test_fixed_trials_is_algorithm_1(n: int, error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(25, 13, 6)
    for table, result in zip(errors, rerank(FixedTrials(n), errors), strict=True):
        algorithm_1(table, n).check(result)
        assert result.stopped_by == "budget"
        assert result.ranking == tuple(np.argsort(table[:n].mean(axis=0, dtype=float)))


# --- Staged -----------------------------------------------------------------------------------------------------------


def algorithm_2(errors: np.ndarray, keep_list: tuple[int, ...], trial_list: tuple[int, ...]) -> Outcome:
    """Algorithm 2 of arXiv 2303.16203 as printed, on one image's errors `[T, K]`."""
    classes = list(range(errors.shape[1]))
    seen: dict[int, list[float]] = {c: [] for c in classes}
    previous, evaluations = 0, 0
    for keep, trials in zip(keep_list, trial_list, strict=True):
        for j in range(trials - previous):
            for c in classes:
                seen[c].append(float(errors[previous + j, c]))
                evaluations += 1
        classes = sorted(classes, key=lambda c: mean(seen[c]))[:keep]
        previous = trials
    winner = min(classes, key=lambda c: mean(seen[c]))
    return Outcome(winner, evaluations, previous, seen)


STAGES = [((3, 1), (2, 9)), ((5, 3, 1), (1, 4, 20)), ((4, 2), (3, 8)), ((1,), (6,)), ((50, 2, 1), (2, 5, 6))]


@pytest.mark.parametrize(("keep", "trials"), STAGES)
def test_staged_is_algorithm_2(
    keep: tuple[int, ...], trials: tuple[int, ...], error_table: Callable[..., np.ndarray]
) -> None:
    errors = error_table(40, trials[-1], 7, seed=len(trials))
    allocation = Staged(keep, trials)
    for table, result in zip(errors, rerank(allocation, errors), strict=True):
        outcome = algorithm_2(table, keep, trials)
        outcome.check(result)
        assert result.evaluations == allocation.evaluations(7)
        assert result.stopped_by == "budget"


def test_staged_spends_nothing_on_a_class_that_is_left_alone(error_table: Callable[..., np.ndarray]) -> None:
    """The one step that Algorithm 2 prints and the loop leaves out: nothing can change any more."""
    errors = error_table(10, 9, 5)
    allocation = Staged((2, 1, 1), (2, 5, 9))
    for table, result in zip(errors, rerank(allocation, errors), strict=True):
        assert result.ranking[0] == algorithm_2(table, (2, 1, 1), (2, 5, 9)).winner
        assert result.evaluations == allocation.evaluations(5) == 5 * 2 + 2 * 3
    assert allocation.evaluations(1) == 0


TABLE_6 = {  # classes, total evaluations as printed
    "food101": (101, 5120),
    "cifar10": (10, 2750),
    "aircraft": (100, 5100),
    "flowers102": (102, 5140),
    "stl10": (10, 3000),
    "imagenet": (1000, 100_000),
    "objectnet": (113, 13_400),
    "pets": (37, 2050),  # printed as 1890, a slip: 37·25 + 5·225 = 2050
}


@pytest.mark.parametrize("dataset", PRESETS)
def test_presets_cost_what_table_6_prints(dataset: str, error_table: Callable[..., np.ndarray]) -> None:
    n_classes, total = TABLE_6[dataset]
    allocation = Staged.preset(dataset)
    assert allocation.evaluations(n_classes) == total
    errors = error_table(1, allocation.max_trials, n_classes)
    (result,) = rerank(allocation, errors, capacity=Capacity(256, 2**16))
    algorithm_2(errors[0], *PRESETS[dataset]).check(result)
    assert result.evaluations == total


def test_preset_names() -> None:
    assert Staged.preset("CIFAR-10") == Staged([5, 1], [50, 500])
    with pytest.raises(InvalidInputError, match=r"no preset 'mnist'.*cifar10"):
        Staged.preset("mnist")


# --- PairedTTest ------------------------------------------------------------------------------------------------------


def algorithm_1_of_clark_and_jaini(errors: np.ndarray, p: float, min_trials: int, max_trials: int) -> Outcome:
    """Algorithm 1 of arXiv 2303.15233 on one image's errors `[T, K]`, with SciPy's paired t-test."""
    seen: dict[int, list[float]] = {c: [] for c in range(errors.shape[1])}
    alive, n, evaluations = list(seen), 0, 0
    while n < max_trials and len(alive) > 1:
        for c in alive:
            seen[c].append(float(errors[n, c]))
            evaluations += 1
        n += 1
        if n >= min_trials:
            best = min(alive, key=lambda c: mean(seen[c]))
            alive = [c for c in alive if c == best or ttest_rel(seen[c], seen[best]).pvalue >= p]
    return Outcome(min(alive, key=lambda c: mean(seen[c])), evaluations, n, seen)


@pytest.mark.parametrize(("p", "min_trials", "max_trials"), [(0.002, 20, 40), (0.05, 2, 25), (0.3, 5, 12)])
def test_paired_t_test_is_clark_and_jainis(
    p: float, min_trials: int, max_trials: int, error_table: Callable[..., np.ndarray]
) -> None:
    errors = error_table(25, max_trials, 5, seed=min_trials, spread=0.7)
    reasons = set()
    for table, result in zip(errors, rerank(PairedTTest(p, min_trials, max_trials), errors), strict=True):
        algorithm_1_of_clark_and_jaini(table, p, min_trials, max_trials).check(result)
        reasons.add(result.stopped_by)
    assert reasons == {"confident", "budget"}  # both ends were seen


def test_the_last_class_standing_is_the_answer_of_an_unfitted_fusion() -> None:
    """A noisy class can outlive one with a lower mean error; what the paper returns is who is left."""
    rng = np.random.default_rng(9)  # such that it matters for three of the images
    noise = rng.standard_normal((30, 20, 8)) * np.exp(1.5 * rng.standard_normal((30, 1, 8)))
    errors = (10 + 0.3 * rng.standard_normal((30, 1, 8)) + noise).astype(np.float32)
    for table, result in zip(errors, rerank(PairedTTest(0.05, 3, 20), errors), strict=True):
        algorithm_1_of_clark_and_jaini(table, 0.05, 3, 20).check(result)
        assert result.posterior.argmax() == result.ranking[0]
        assert result.posterior.sum() == pytest.approx(1)


def test_paired_t_test_defaults_are_the_papers() -> None:
    assert PairedTTest() == PairedTTest(p=0.002, min_trials=20, max_trials=2000)


def test_paired_t_test_keeps_classes_that_are_the_same_and_drops_a_constant_gap() -> None:
    level = np.random.default_rng(0).integers(0, 100, (1, 30, 1)).astype(np.float32)
    errors = np.concatenate([level + 1, level, level], axis=2)
    (result,) = rerank(PairedTTest(0.01, 3, 30), errors)
    assert result.stopped_by == "budget"
    assert result.evaluations == 3 * 3 + 27 * 2
    assert np.isnan(result.evidence[3:, 0]).all()


@pytest.mark.parametrize("allocation", [PairedTTest(0.2, 2, 40), Staged((4, 2, 1), (2, 10, 40)), Race(0.6, 40)])
@pytest.mark.parametrize("fusion", [FUSED, Fusion(1.0, 1.0, 0.02, 0.5, calibrated=True), Fusion()])
def test_a_class_that_was_dropped_never_ranks_first(
    allocation: Allocation, fusion: Fusion, error_table: Callable[..., np.ndarray]
) -> None:
    """Not even where the prior favours it and it was dropped for its errors."""
    errors = error_table(100, 40, 8, spread=0.4)
    log_prior = log_softmax(np.random.default_rng(1).normal(scale=3, size=(100, 8)), axis=1)
    for result in rerank(allocation, errors, log_prior, fusion):
        if result.rows:
            assert np.isfinite(result.evidence[-1, result.ranking[0]])
        assert result.posterior.argmax() == result.ranking[0]
        assert result.posterior.sum() == pytest.approx(1)


def test_whom_the_prior_favours_stays_until_the_evidence_outweighs_it() -> None:
    rng = np.random.default_rng(0)
    errors = (10 + 0.1 * rng.standard_normal((1, 60, 3)) + [[[0.2, 0.0, 5.0]]]).astype(np.float32)
    log_prior, allocation = np.log([[0.9, 0.05, 0.05]]), PairedTTest(0.01, 5, 60)
    (torn,) = rerank(allocation, errors, log_prior, Fusion(1, 1, 0.01, 0, calibrated=True))
    assert (torn.ranking[0], torn.rows, torn.stopped_by) == (0, 60, "budget")
    assert np.isnan(torn.evidence[5:, 2]).all()  # nothing speaks for this one
    (turned,) = rerank(allocation, errors, log_prior, Fusion(1, 1, 1.0, 0, calibrated=True))
    assert (turned.ranking[0], turned.stopped_by) == (1, "confident")
    assert 5 < turned.rows < 60


# --- Race -------------------------------------------------------------------------------------------------------------


@dataclass
class Raced(Outcome):
    posterior: list[float]
    stopped_by: str


def race(errors: np.ndarray, log_prior: np.ndarray, fusion: Fusion, confidence: float, max_trials: int) -> Raced:
    """The race on one image's errors `[T, K]`, in scalars: dropped classes keep the share they had."""
    k = len(log_prior)
    alive, frozen = list(range(k)), [0.0] * k
    seen: dict[int, list[float]] = {c: [] for c in alive}
    n = evaluations = 0
    while True:
        if n == 0:
            score = {c: fusion.prior_alone * log_prior[c] for c in alive}
        else:
            beta = fusion.error_weight / (1 + fusion.correlation * (n - 1))
            score = {c: fusion.prior_weight * log_prior[c] - beta * math.fsum(seen[c]) for c in alive}
        top = max(score.values())
        total = math.fsum(math.exp(s - top) for s in score.values())
        left = 1 - math.fsum(frozen[c] for c in range(k) if c not in alive)
        share = {c: left * math.exp(score[c] - top) / total for c in alive}
        leader = max(alive, key=lambda c: share[c])
        stays = [c for c in alive if c == leader or (share[leader] < confidence and share[c] >= (1 - confidence) / k)]
        for c in set(alive) - set(stays):
            frozen[c] = share[c]
        alive = stays
        if len(alive) == 1:
            frozen[leader] = 1 - math.fsum(frozen[c] for c in range(k) if c != leader)
            return Raced(leader, evaluations, n, seen, frozen, "confident")
        if n == max_trials:
            left = 1 - math.fsum(frozen[c] for c in range(k) if c not in alive)
            total = math.fsum(share[c] for c in alive)
            posterior = [left * share[c] / total if c in alive else frozen[c] for c in range(k)]
            return Raced(posterior.index(max(posterior)), evaluations, n, seen, posterior, "budget")
        for c in alive:
            seen[c].append(float(errors[n, c]))
            evaluations += 1
        n += 1


@pytest.mark.parametrize("confidence", [0.7, 0.95, 0.999])
@pytest.mark.parametrize("fusion", [FUSED, Fusion(1.2, 0.0, 0.5, 1.0), Fusion(1.0, 1.0, 1.5, 0.0)])
def test_race_is_its_scalar_restatement(
    confidence: float, fusion: Fusion, error_table: Callable[..., np.ndarray]
) -> None:
    n, max_trials, k = 60, 12, 6
    errors = error_table(n, max_trials, k, spread=1.0)
    log_prior = log_softmax(np.random.default_rng(1).normal(scale=2.5, size=(n, k)), axis=1)
    results = rerank(Race(confidence, max_trials), errors, log_prior, fusion)
    for table, prior, result in zip(errors, log_prior, results, strict=True):
        outcome = race(table, prior, fusion, confidence, max_trials)
        outcome.check(result)
        np.testing.assert_allclose(result.posterior, outcome.posterior, rtol=1e-9)
        assert result.stopped_by == outcome.stopped_by
    settled = sum(result.rows == 0 for result in results)
    assert 0 < settled < n or confidence == 0.999
    reasons = {result.stopped_by for result in results}
    assert reasons == {"confident", "budget"} or confidence == 0.7


def test_race_leaves_a_sure_prior_alone(error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(1, 4, 3)
    (result,) = rerank(Race(0.9, 4), errors, np.log([[0.02, 0.95, 0.03]]))
    np.testing.assert_allclose(result.posterior, [0.02, 0.95, 0.03])
    assert (result.ranking, result.evaluations, result.rows) == ((1, 2, 0), 0, 0)
    assert result.stopped_by == "confident"
    assert result.evidence.shape == (0, 3)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedTrials(0),
        lambda: FixedTrials(-3),
        lambda: FixedTrials(2.5),  # type: ignore[arg-type]
        lambda: FixedTrials(True),
        lambda: FixedTrials("3"),  # type: ignore[arg-type]
        lambda: FixedTrials(None),  # type: ignore[arg-type]
        lambda: Staged((), ()),
        lambda: Staged((5, 1), (50,)),
        lambda: Staged((0, 1), (5, 10)),
        lambda: Staged((5, 1), (10, 10)),
        lambda: Staged((5, 1), (0, 10)),
        lambda: Staged((5, 1), (20, 10)),
        lambda: Staged((5, 1), (2.5, 10)),  # type: ignore[arg-type]
        lambda: Staged((5, True), (5, 10)),
        lambda: Staged((5, 1), (5, np.inf)),
        lambda: Staged("51", (5, 10)),
        lambda: Staged.preset(3),  # type: ignore[arg-type]
        lambda: PairedTTest(p=0),
        lambda: PairedTTest(p=1),
        lambda: PairedTTest(p=math.nan),
        lambda: PairedTTest(p="0.1"),  # type: ignore[arg-type]
        lambda: PairedTTest(p=True),
        lambda: PairedTTest(min_trials=math.inf),  # type: ignore[arg-type]
        lambda: PairedTTest(min_trials=1),
        lambda: PairedTTest(min_trials=30, max_trials=29),
        lambda: PairedTTest(max_trials=1e3),  # type: ignore[arg-type]
        lambda: Race(confidence=1.0),
        lambda: Race(confidence=0.0),
        lambda: Race(confidence=math.nan),
        lambda: Race(confidence="x"),  # type: ignore[arg-type]
        lambda: Race(confidence=None),  # type: ignore[arg-type]
        lambda: Race(max_trials=True),
        lambda: Race(max_trials=0),
        lambda: Race(max_trials=7.5),  # type: ignore[arg-type]
    ],
)
def test_parameters_that_make_no_sense_are_refused(make: Callable[[], Allocation]) -> None:
    with pytest.raises(InvalidInputError):
        make()


def test_numbers_that_are_in_no_sequence_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match="keep must be a sequence of whole numbers such as"):
        Staged(5, (10,))  # type: ignore[arg-type]


def test_numbers_from_numpy_are_numbers() -> None:
    assert Race(np.float32(0.5)).confidence == 0.5
    assert FixedTrials(np.int64(3)).max_trials == 3
    assert Staged(np.array([5, 1]), np.array([2, 9])).max_trials == 9
    assert hash(Staged([5, 1], [2, 9])) == hash(Staged((5, 1), (2, 9)))


@pytest.mark.parametrize(
    ("allocation", "n_trials", "limited"),
    [
        (Race(0.9, 16), 8, Race(0.9, 8)),
        (Race(0.9, 4), 8, Race(0.9, 4)),
        (PairedTTest(0.01, 5, 64), 10, PairedTTest(0.01, 5, 10)),
        (PairedTTest(0.01, 5, 64), 3, PairedTTest(0.01, 3, 3)),
        (PairedTTest(0.01, 5, 64), 1, FixedTrials(1)),
        (Staged((5, 1), (2, 10)), 10, Staged((5, 1), (2, 10))),
        (Staged((5, 1), (2, 10)), 9, FixedTrials(9)),
    ],
)
def test_rules_are_limited_to_the_trials_that_were_recorded(
    allocation: Allocation, n_trials: int, limited: Allocation
) -> None:
    assert allocation.limited_to(n_trials) == limited
