"""AsyncReranker: the offline answers, at any time of arrival, before any deadline, whoever else is in the batch."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import fields
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits

from hybridclf.denoising import evaluator
from hybridclf.errors import ClosedError, InvalidInputError, QueueFullError, UnknownLabelError
from hybridclf.estimator import HybridClassifier
from hybridclf.live.async_reranker import AsyncReranker
from hybridclf.reranker import Reranker
from hybridclf.reranking.allocation import Allocation, FixedTrials, PairedTTest, Race
from hybridclf.reranking.evidence import Evidence, RerankResult
from hybridclf.reranking.fusion import Fusion

LABELS = ("ant", "bee", "cow", "dog", "elk")
FUSED = Fusion(prior_alone=1.0, prior_weight=0.6, error_weight=0.4, correlation=0.1, calibrated=True)
PATIENCE = 60.0
"""Seconds after which a test gives up."""


class Gate:
    """Around a denoiser: every batch waits for a permit, and is noted."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser
        self.permits = threading.Semaphore(0)
        self.is_open = False
        self.reached = threading.Semaphore(0)
        self.rows: list[int] = []
        self.conditioned_on: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, x_t: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.rows.append(len(x_t))
        self.reached.release()
        assert self.is_open or self.permits.acquire(timeout=PATIENCE)
        return self.denoiser.predict(x_t, *rest)

    def condition(self, labels: Sequence[Any]) -> Any:
        self.conditioned_on.append(threading.current_thread().name)
        return self.denoiser.condition(labels)

    def let_pass(self, batches: int) -> None:
        """Wait until that many batches more have come, and let them pass."""
        for _ in range(batches):
            assert self.reached.acquire(timeout=PATIENCE)
            self.permits.release()

    def open(self) -> None:
        """Let all pass from now on."""
        self.is_open = True
        self.permits.release()


@pytest.fixture
def gated(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> Iterator[Gate]:
    gate = Gate(gaussian_denoiser(means))
    yield gate
    gate.open()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("hybridclf")]
    assert left == []


def same(a: RerankResult, b: RerankResult, rtol: float = 0.0) -> None:
    for f in fields(RerankResult):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            np.testing.assert_allclose(x, y, rtol=rtol, err_msg=f.name)
        else:
            assert x == y, f.name


def results_of(futures: Sequence[Future[RerankResult]]) -> list[RerankResult]:
    return [future.result(timeout=PATIENCE) for future in futures]


# --- the same answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", [FixedTrials(5), Race(0.95, 8), PairedTTest(0.2, 2, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_the_offline_ones(
    allocation: Allocation,
    dtype: torch.dtype,
    gaussian_denoiser: Callable[..., Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    candidates: list[list[str]],
    priors: list[np.ndarray],
) -> None:
    """From four threads, in any order: but for rounding, as other images share their batches."""
    cost_unit, rtol = ("evaluation", 1e-4) if dtype == torch.float32 else ("row", 1e-6)

    def stage() -> Reranker:
        denoiser = gaussian_denoiser(means, dtype=dtype, cost_unit=cost_unit)
        return Reranker(denoiser, allocation=allocation, fusion=FUSED, batch_size=8)

    offline = stage().rerank(images, candidates, priors)
    order = np.random.default_rng(5).permutation(len(images))
    with AsyncReranker(stage(), max_candidates=7) as live, ThreadPoolExecutor(4) as threads:
        handed_in = [threads.submit(live.submit, images[i], candidates[i], priors[i]) for i in order]
        live_results = results_of([future.result(timeout=PATIENCE) for future in handed_in])
    for i, result in zip(order, live_results, strict=True):
        same(result, offline[i], rtol)


def test_digits_are_answered_as_the_classifier_does() -> None:
    digits = load_digits()
    clf = HybridClassifier.from_pretrained("digits")
    chosen = digits.images[1000:1200]
    candidates, log_prior = clf.propose(chosen)
    with AsyncReranker(clf.reranker(), max_queue=len(chosen)) as live:
        futures = [live.submit(*item) for item in zip(chosen, candidates, log_prior, strict=True)]
        results = results_of(futures)
    for a, b in zip(results, clf.rerank(chosen), strict=True):
        assert (a.ranking, a.evaluations, a.stopped_by) == (b.ranking, b.evaluations, b.stopped_by)
        np.testing.assert_allclose(a.posterior, b.posterior, rtol=1e-9)


def test_buffers_may_be_used_anew(gated: Gate, images: np.ndarray) -> None:
    """One for all images and one for all priors, as a camera and a network have them."""
    prior = np.log(np.random.default_rng(3).dirichlet(np.ones(5), 6))
    stage = Reranker(gated.denoiser, allocation=FixedTrials(3), fusion=FUSED)
    offline = stage.rerank(images[:6], [LABELS] * 6, prior)
    image, log_prior, futures = np.empty_like(images[0]), np.empty(5), []
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(3), fusion=FUSED)) as live:
        for i in range(6):
            image[:], log_prior[:] = images[i], prior[i]
            futures.append(live.submit(image, LABELS, log_prior))
        image[:], log_prior[:] = np.nan, -1.0
        gated.open()
        for a, b in zip(results_of(futures), offline, strict=True):
            same(a, b, rtol=1e-6)


def test_without_a_prior_it_is_uniform(gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> None:
    with AsyncReranker(Reranker(gaussian_denoiser(means), allocation=FixedTrials(4), fusion=FUSED)) as live:
        a = live.submit(means["cow"], LABELS).result(PATIENCE)
        b = live.submit(means["cow"], LABELS, np.full(5, -np.log(5))).result(PATIENCE)
    same(a, b)
    assert a.ranking[0] == "cow"


def test_what_its_prior_settles_waits_for_no_batch(gated: Gate, images: np.ndarray) -> None:
    """While the denoiser is at another image, and as the loop itself would answer."""
    sure = np.log([0.99999, *[0.0000025] * 4])
    (expected,) = Reranker(gated, allocation=Race(0.9, 8), fusion=FUSED).rerank(images[1:2], [LABELS], [sure])
    with AsyncReranker(Reranker(gated, allocation=Race(0.9, 8), fusion=FUSED), max_candidates=5) as live:
        first = live.submit(images[0], LABELS)
        assert gated.reached.acquire(timeout=PATIENCE)
        settled = live.submit(images[1], LABELS, sure, deadline=100)
        assert settled.done() and not first.done()
        same(settled.result(), expected)
        assert (expected.stopped_by, expected.evaluations) == ("confident", 0)
        gated.open()
        assert first.result(PATIENCE).evaluations > 0


def test_late_arrivals_join_the_running_batch(gated: Gate, images: np.ndarray) -> None:
    with AsyncReranker(Reranker(gated, allocation=Race(1 - 1e-12, 6), fusion=FUSED)) as live:
        first = live.submit(images[0], LABELS)
        gated.let_pass(2)
        assert gated.reached.acquire(timeout=PATIENCE)  # the third trial of the first is being evaluated
        late = [live.submit(image, LABELS) for image in images[1:4]]
        gated.permits.release()
        gated.open()
        (a, *others) = results_of([first, *late])
    assert gated.rows[:4] == [1, 1, 1, 4]
    assert sum(gated.rows) == a.rows + sum(r.rows for r in others)


@pytest.mark.parametrize("cost_unit", ["row", "evaluation"])
def test_clients_take_turns(
    cost_unit: str, gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    """A batch has one trial; images wait in the queue (rows) or in the loop (pairs), and a client's own in order."""
    gate, finished = Gate(gaussian_denoiser(means, cost_unit=cost_unit)), []
    stage = Reranker(gate, allocation=FixedTrials(3), fusion=FUSED, batch_size=1 if cost_unit == "row" else len(LABELS))
    try:
        with AsyncReranker(stage) as live:
            sent = [(f"many {i}", "many") for i in range(6)] + [("few 0", "few"), ("few 1", "few")]
            for image, (name, client) in zip(images, sent, strict=False):
                future = live.submit(image, LABELS, client=client)
                future.add_done_callback(lambda _, name=name: finished.append(name))  # type: ignore[misc]
                if name == "many 0":
                    assert gate.reached.acquire(timeout=PATIENCE)
            gate.open()
    finally:
        gate.open()
    assert finished == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3", "many 4", "many 5"]


def test_no_client_s_second_image_waits_for_the_many_that_come_later(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    """Six clients ask again as soon as they are answered, a seventh has two images at a time."""
    stage = Reranker(gaussian_denoiser(means), allocation=FixedTrials(20), fusion=FUSED, batch_size=6)
    answered = 0
    with AsyncReranker(stage) as live:

        def again(client: str, _: Any = None) -> None:
            nonlocal answered
            answered += 1
            if answered < 500 and not second.done():
                live.submit(images[0], LABELS, client=client).add_done_callback(partial(again, client))

        _, second = (live.submit(image, LABELS, client="two") for image in images[1:3])
        for i in range(6):
            again(f"one {i}")
        assert second.result(PATIENCE).rows == 20
        assert answered < 60


def test_a_bound_on_evaluations_is_kept(gated: Gate, images: np.ndarray) -> None:
    gated.open()
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(6), fusion=FUSED)) as live:
        bounded, free = results_of([live.submit(images[0], LABELS, max_evaluations=13), live.submit(images[1], LABELS)])
    assert (bounded.evaluations, bounded.stopped_by) == (10, "budget")
    assert free.evaluations == 30


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_at_the_deadline_the_best_answer_so_far_comes_back(gated: Gate, images: np.ndarray) -> None:
    """While the denoiser stands still: the promise is not kept by the loop."""
    allocation = FixedTrials(5)
    offline = Reranker(gated.denoiser, allocation=allocation, fusion=FUSED).rerank(images[:1], [LABELS])[0]
    with AsyncReranker(Reranker(gated, allocation=allocation, fusion=FUSED, batch_size=1)) as live:
        future = live.submit(images[0], LABELS, deadline=2.0)
        gated.let_pass(2)
        assert gated.reached.acquire(timeout=PATIENCE)
        result = future.result(timeout=PATIENCE)
        assert (result.stopped_by, result.rows, result.evaluations) == ("deadline", 2, 10)
        np.testing.assert_allclose(result.evidence, offline.evidence[:2], rtol=1e-6)
        sums = offline.evidence[:2].sum(axis=0, dtype=float)[None]
        expected = FUSED.posterior(np.full((1, 5), -np.log(5)), sums, np.array([2]))[0]
        np.testing.assert_allclose(result.posterior, expected, rtol=1e-5)
        gated.open()
        assert live.submit(images[1], LABELS).result(PATIENCE).rows == 5  # the place is free again
    assert sum(gated.rows) == 3 + 5  # the batch under way was the last for the image that was answered


def test_where_nothing_was_evaluated_the_deadline_gets_tier_1s_order(gated: Gate, images: np.ndarray) -> None:
    log_prior = np.log([0.1, 0.3, 0.05, 0.35, 0.2])
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(5), fusion=FUSED, batch_size=1)) as live:
        start = monotonic()
        futures = [live.submit(image, LABELS, log_prior, deadline=0.3) for image in images[:4]]  # three of them wait
        results = results_of(futures)
        assert monotonic() - start >= 0.3
        assert live.waiting == live.under_way == 0
        gated.open()
    for result in results:
        assert (result.stopped_by, result.evaluations, result.rows) == ("deadline", 0, 0)
        np.testing.assert_allclose(result.posterior, softmax(FUSED.prior_alone * log_prior))
        assert result.ranking == ("dog", "bee", "elk", "ant", "cow")


def test_deadlines_are_kept_while_the_denoiser_is_slow(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    class Slow(gaussian_denoiser):  # type: ignore[misc, valid-type]
        def predict(self, *arguments: Any) -> torch.Tensor:
            threading.Event().wait(0.5)
            return super().predict(*arguments)

    lateness: list[float] = []
    with AsyncReranker(Reranker(Slow(means), allocation=FixedTrials(3), fusion=FUSED, batch_size=4)) as live:
        futures = []
        for i, image in enumerate(images):
            due = monotonic() + 0.02 * (i % 20)
            future = live.submit(image, LABELS, deadline=0.02 * (i % 20))
            future.add_done_callback(lambda _, due=due: lateness.append(monotonic() - due))
            futures.append(future)
        results = results_of(futures)
    assert {r.stopped_by for r in results} == {"deadline"}
    assert len(lateness) == len(images)
    assert np.median(lateness) < 0.1  # a batch takes half a second


def test_a_deadline_far_away_changes_nothing(gated: Gate, images: np.ndarray) -> None:
    gated.open()
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(3), fusion=FUSED)) as live:
        a, b, c = results_of([live.submit(images[0], LABELS, deadline=d) for d in (None, 1e12, float("inf"))])
    same(a, b)
    same(a, c)


# --- images that break something --------------------------------------------------------------------------------------


def test_a_poisonous_image_costs_only_itself(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    class Picky(gaussian_denoiser):  # type: ignore[misc, valid-type]
        def encode(self, batch: Any) -> torch.Tensor:
            x0 = super().encode(batch)
            if (x0 > 1000).any():
                raise ArithmeticError("too bright")
            return x0

    def stage() -> Reranker:
        denoiser = Picky(means, dtype=torch.float32, cost_unit="evaluation")
        return Reranker(denoiser, allocation=FixedTrials(4), fusion=FUSED, batch_size=16)

    log_prior = np.log([0.1, 0.3, 0.05, 0.35, 0.2])
    clean = stage().rerank(images[:12], [LABELS] * 12, [log_prior] * 12)
    handed_in: list[Any] = list(images[:12])
    handed_in[2], handed_in[5], handed_in[7] = np.zeros((9, 9)), np.full((3, 4), 1e6), np.full((3, 4), np.nan)
    with AsyncReranker(stage()) as live:
        futures = [live.submit(image, LABELS, log_prior) for image in handed_in]
        wait(futures, timeout=PATIENCE)
        assert live.alive
        assert live.submit(images[0], LABELS, log_prior).result(PATIENCE).ranking == clean[0].ranking
    with pytest.raises((ValueError, RuntimeError)):
        futures[2].result()
    with pytest.raises(ArithmeticError, match="too bright"):
        futures[5].result()
    assert futures[7].result().stopped_by == "fallback"
    assert futures[7].result().ranking == ("dog", "bee", "elk", "ant", "cow")
    for i in set(range(12)) - {2, 5, 7}:
        same(futures[i].result(), clean[i], rtol=1e-4)


class Failing(FixedTrials):
    """Fails once there is evidence."""

    def survivors(self, evidence: Evidence) -> np.ndarray:
        if evidence.n_trials.any():
            raise ZeroDivisionError("allocation")
        return super().survivors(evidence)


def test_a_loop_that_fails_keeps_nobody_waiting(gated: Gate, images: np.ndarray) -> None:
    live = AsyncReranker(Reranker(gated, allocation=Failing(3), batch_size=1))
    futures = [live.submit(image, LABELS, deadline=100) for image in images[:3]]
    gated.open()
    for future in futures:
        with pytest.raises(ZeroDivisionError):
            future.result(PATIENCE)
    assert not live.alive
    with pytest.raises(ClosedError):
        live.submit(images[0], LABELS)
    live.close()


class Quitting:
    """Around a denoiser: once it may, it ends its thread."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.may = denoiser, threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, *arguments: Any) -> Any:
        assert self.may.wait(PATIENCE)
        raise SystemExit(3)


def test_a_denoiser_that_ends_its_thread_keeps_nobody_waiting(gated: Gate, images: np.ndarray) -> None:
    quitting = Quitting(gated)
    live = AsyncReranker(Reranker(quitting, batch_size=2))
    futures = [live.submit(image, LABELS, deadline=100) for image in images[:3]]
    quitting.may.set()
    for future in futures:
        with pytest.raises(ClosedError, match="has ended with SystemExit"):
            future.result(PATIENCE)
    live.close()
    assert not live.alive
    assert live.busy_seconds == 0


def test_a_batch_that_hangs_is_seen_to_take_long(gated: Gate, images: np.ndarray) -> None:
    with AsyncReranker(Reranker(gated, batch_size=2)) as live:
        assert live.busy_seconds == 0
        future = live.submit(images[0], LABELS)
        assert gated.reached.acquire(timeout=PATIENCE)
        first = live.busy_seconds
        sleep(0.05)
        assert live.busy_seconds >= first + 0.05
        gated.open()
        future.result(PATIENCE)
        until = monotonic() + PATIENCE
        while live.busy_seconds and monotonic() < until:
            sleep(0.01)
        assert live.busy_seconds == 0


def test_an_observer_that_fails_harms_nobody(gated: Gate, images: np.ndarray) -> None:
    class Broken:
        def batch(self, fill: float, seconds: float) -> None:
            assert 0 < fill <= 1
            raise ZeroDivisionError("observer")

        def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
            raise ZeroDivisionError("observer")

    gated.open()
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(3)), observer=Broken()) as live:
        futures = [live.submit(image, LABELS) for image in images[:3]]
        assert all(future.result(PATIENCE).rows == 3 for future in futures)
        assert live.alive


def test_an_observer_is_told_of_the_batches_that_the_denoiser_had(
    gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray], images: np.ndarray
) -> None:
    """Twelve trials of one image, the first two together and then one by one, in batches of eight rows."""

    class Told:
        def __init__(self) -> None:
            self.fills: list[float] = []

        def batch(self, fill: float, seconds: float) -> None:
            self.fills.append(fill)

        def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
            pass

    gate, told = Gate(gaussian_denoiser(means, dtype=torch.float32)), Told()
    gate.open()
    stage = Reranker(gate, allocation=PairedTTest(1e-12, 2, 12), batch_size=8)
    with AsyncReranker(stage, observer=told) as live:
        assert live.submit(images[0], LABELS).result(PATIENCE).rows == 12
    assert gate.rows == [2, *[1] * 10]
    assert told.fills == [2 / 8, *[1 / 8] * 10]


# --- cancelling, refusing, closing ------------------------------------------------------------------------------------


def test_cancelled_images_leave_and_harm_nobody(gated: Gate, images: np.ndarray) -> None:
    stage = Reranker(gated, allocation=FixedTrials(4), fusion=FUSED, batch_size=2)
    offline = Reranker(gated.denoiser, allocation=FixedTrials(4), fusion=FUSED).rerank(images[:6], [LABELS] * 6)
    with AsyncReranker(stage) as live:
        futures = [live.submit(image, LABELS, deadline=1000) for image in images[:6]]
        assert gated.reached.acquire(timeout=PATIENCE)
        assert futures[0].cancel() and futures[1].cancel()  # under way
        assert futures[4].cancel()  # waiting
        assert (live.under_way, live.waiting) == (0, 3)
        gated.open()
        for i in (2, 3, 5):
            same(futures[i].result(PATIENCE), offline[i], rtol=1e-6)
        assert not futures[2].cancel()
    assert all(futures[i].cancelled() for i in (0, 1, 4))
    assert sum(gated.rows) == 2 + 3 * 4


def test_a_full_queue_refuses_at_once_and_takes_again(gated: Gate, images: np.ndarray) -> None:
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(2), batch_size=2), max_queue=3) as live:
        futures = [live.submit(image, LABELS) for image in images[:5]]  # two places in the loop and three to wait
        assert live.capacity == 5
        with pytest.raises(QueueFullError, match="5 images wait or are under way"):
            live.submit(images[5], LABELS)
        futures[4].cancel()
        futures[4] = live.submit(images[5], LABELS)
        gated.open()
        results_of(futures)
        assert live.submit(images[6], LABELS).result(PATIENCE).rows == 2


@pytest.mark.parametrize("drain", [True, False])
def test_close_answers_or_cancels_what_was_taken(drain: bool, gated: Gate, images: np.ndarray) -> None:
    live = AsyncReranker(Reranker(gated, allocation=FixedTrials(3), batch_size=2))
    futures = [live.submit(image, LABELS) for image in images[:7]]
    assert gated.reached.acquire(timeout=PATIENCE)
    closer = threading.Thread(target=live.close, args=(drain,))
    closer.start()
    while live.alive:
        threading.Event().wait(0.001)
    with pytest.raises(ClosedError, match="closed"):
        live.submit(images[0], LABELS)
    gated.open()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    if drain:
        assert [r.rows for r in results_of(futures)] == [3] * 7
    else:
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)
    live.close()  # a second time does no harm


def test_leaving_with_an_error_does_not_drain(gated: Gate, images: np.ndarray) -> None:
    with pytest.raises(KeyError), AsyncReranker(Reranker(gated, allocation=FixedTrials(3))) as live:
        future = live.submit(images[0], LABELS)
        gated.open()
        raise KeyError
    assert future.done()


def test_a_callback_may_close(gated: Gate, images: np.ndarray) -> None:
    gated.open()
    live = AsyncReranker(Reranker(gated, allocation=FixedTrials(1)))
    closed = threading.Event()
    live.submit(images[0], LABELS).add_done_callback(lambda _: (live.close(), closed.set()))
    assert closed.wait(PATIENCE)
    live._loop.thread.join(PATIENCE)


@pytest.mark.slow
def test_a_program_that_forgets_to_close_ends() -> None:
    code = (
        "from sklearn.datasets import load_digits; from hybridclf import *;"
        "clf = HybridClassifier.from_pretrained('digits'); stage = AsyncReranker(clf.reranker(FixedTrials(4000)));"
        "[stage.submit(image, range(10)) for image in load_digits().images[:100]]; print('end')"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"candidates": []}, InvalidInputError, "the image has no candidates"),
        ({"candidates": ["ant", "ant"]}, InvalidInputError, "lists a candidate twice"),
        ({"candidates": "ant"}, InvalidInputError, "must be a list of labels, got the text 'ant'"),
        ({"candidates": ["ant", "yak"]}, UnknownLabelError, "yak"),
        ({"candidates": LABELS * 30}, InvalidInputError, "got 150 candidates, at most 100 are taken"),
        ({"log_prior": [0.0, np.nan]}, InvalidInputError, "finite number or -inf"),
        ({"log_prior": [0.0]}, InvalidInputError, "2 candidates but a log prior of shape"),
        ({"deadline": -1}, InvalidInputError, "deadline must be"),
        ({"deadline": float("nan")}, InvalidInputError, "deadline must be"),
        ({"deadline": "soon"}, InvalidInputError, "deadline must be"),
        ({"deadline": True}, InvalidInputError, "deadline must be"),
        ({"deadline": np.zeros(2)}, InvalidInputError, "deadline must be"),
        ({"log_prior": ["a", "b"]}, InvalidInputError, "the image: a log prior must be one number per candidate"),
        *[({"max_evaluations": n}, InvalidInputError, "max_evaluations") for n in (-1, 2.5, True, "x", np.nan, np.inf)],
    ],
)
def test_bad_input_is_refused_at_once(
    change: dict[str, Any], error: type[Exception], message: str, gated: Gate, images: np.ndarray
) -> None:
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(2))) as live:
        with pytest.raises(error, match=message):
            live.submit(images[0], **{"candidates": ["ant", "bee"], **change})
        assert live.waiting == live.under_way == 0


@pytest.mark.parametrize(("name", "lowest"), [("max_queue", 0), ("max_candidates", 1)])
@pytest.mark.parametrize("value", [-1, 2.5, True, "3", None, np.nan, np.inf])
def test_bad_parameters_are_refused(name: str, lowest: int, value: Any, gated: Gate) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be a whole number of at least {lowest}, got"):
        AsyncReranker(Reranker(gated), **{name: value})


# --- awaiting ---------------------------------------------------------------------------------------------------------


def test_it_can_be_awaited(gated: Gate, images: np.ndarray) -> None:
    async def ask() -> list[RerankResult]:
        return await asyncio.gather(*[live.rerank(image, LABELS) for image in images])

    gated.open()
    offline = Reranker(gated.denoiser, allocation=FixedTrials(3), fusion=FUSED).rerank(images, [LABELS] * len(images))
    with AsyncReranker(Reranker(gated, allocation=FixedTrials(3), fusion=FUSED)) as live:
        for a, b in zip(asyncio.run(ask()), offline, strict=True):
            same(a, b, rtol=1e-6)


def test_a_cancelled_await_takes_the_image_out(gated: Gate, images: np.ndarray) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(live.rerank(images[0], LABELS))
        while not live.under_way:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert live.under_way == 0

    with AsyncReranker(Reranker(gated, allocation=FixedTrials(3))) as live:
        asyncio.run(give_up())
        gated.open()


# --- labels that come and go ------------------------------------------------------------------------------------------


def test_new_labels_are_conditioned_before_the_loop_sees_them(gated: Gate, images: np.ndarray) -> None:
    gated.open()
    stage = Reranker(gated, allocation=FixedTrials(3), fusion=FUSED)
    stage.condition(["ant", "bee"])
    gated.conditioned_on.clear()
    with AsyncReranker(stage) as live:
        live.submit(images[0], ["bee", "ant"]).result(PATIENCE)
        assert gated.conditioned_on == []
        live.submit(images[0], ["bee", "cow"]).result(PATIENCE)
        asyncio.run(live.rerank(images[0], ["elk", "dog"]))
    assert len(gated.conditioned_on) == 2
    assert gated.conditioned_on[0] == threading.current_thread().name
    assert not any(name.startswith("hybridclf") for name in gated.conditioned_on)


def test_labels_that_nobody_asks_for_any_more_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, gaussian_denoiser: Callable[..., Any]
) -> None:
    monkeypatch.setattr(evaluator, "KEPT_LABELS", 6)
    rng = np.random.default_rng(0)
    means = {f"class {i}": rng.standard_normal(3) for i in range(60)}
    lists = [[f"class {c}" for c in rng.permutation(60)[: rng.integers(2, 6)]] for _ in range(50)]
    images = list(rng.standard_normal((50, 3)))

    def stage() -> Reranker:
        return Reranker(gaussian_denoiser(means), allocation=FixedTrials(3), fusion=FUSED, batch_size=3)

    offline = stage().rerank(images, lists)
    with AsyncReranker(stage()) as live:
        results = results_of([live.submit(image, labels) for image, labels in zip(images, lists, strict=True)])
        table = live._loop.evaluate.evaluate.table  # type: ignore[attr-defined]
        assert len(table) <= 6 + 5 + 3 * 5
        for i in range(4):  # what the slots that are free now once held is not kept for their sake
            live.submit(images[i], lists[i]).result(PATIENCE)
        assert len(table) <= 6 + 5
    for a, b in zip(results, offline, strict=True):
        same(a, b, rtol=1e-6)
