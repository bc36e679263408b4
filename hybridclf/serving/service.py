"""Service of both tiers: it turns an image and its labels into an answer by a deadline."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from ..data.arrays import Items
from ..data.decoders import Decoders, is_quick
from ..data.decoding import claimed_pixels
from ..data.image_files import as_item, check_image_shape
from ..errors import ClosedError, InvalidInputError
from ..estimator import HybridClassifier
from ..live.async_reranker import AsyncReranker
from ..ports import Label
from ..reranking.evidence import TIER_1_ANSWERS, RerankResult
from ..reranking.tasks import LOG_ZERO
from .admission import Admission
from .byte_budget import ByteBudget, Hold
from .fair_executor import FairExecutor
from .images import bytes_of, read_item
from .labels import RequestLabels
from .limits import UNREADY, Limits
from .prometheus import ServerMetrics

__all__ = ["Answer", "Question", "Service"]

QUICK_THREADS = 2
"""Threads for small images."""

TOLERANCE = 0.02
"""Seconds after the deadline from which an answer counts as late."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """Image to classify, with labels and bounds.

    Attributes
    ----------
    image : bytes
        Content of an image file.
    labels : tuple of labels `[L]`
        Labels to choose from.
    log_prior : float array `[L]` or None
        Tier 1's log-probabilities. None: the model's own proposer computes them and shortlists the labels.
    deadline : float or None
        Deadline by `time.monotonic`.
    max_evaluations : int or None
        Most evaluations.
    client : str
        Name of the client; clients take turns.
    hold : Hold or None
        Byte budget that the decoded image is taken from.
    may_reject : bool
        Whether the image may be none of the labels, which are then the model's own; if the model rejects any.
    """

    image: bytes
    labels: tuple[Label, ...]
    log_prior: np.ndarray | None = None
    deadline: float | None = None
    max_evaluations: int | None = None
    client: str = ""
    hold: Hold | None = None
    may_reject: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())


@dataclass(frozen=True)
class Answer:
    """Posterior of the labels `[L]`, cost in evaluations, reason why re-ranking stopped, p-value that it is novel."""

    posterior: np.ndarray
    evaluations: int
    stopped_by: str
    novelty: float | None = None

    @property
    def degraded(self) -> bool:
        """True if a deadline or a failure cut the answer short."""
        return self.stopped_by in ("deadline", "fallback")


@dataclass(frozen=True)
class _HandedIn:
    """Image submitted to the loop.

    Attributes
    ----------
    log_prior : float array `[L]`
        Tier 1's log-probabilities of the labels.
    candidates : int array `[k]`
        Positions of the labels that tier 2 compares.
    future : Future
        Result to come.
    novelty : float or None
        P-value of the image, where it may be rejected.
    evaluations : int
        Cost of that.
    """

    log_prior: np.ndarray
    candidates: np.ndarray
    future: Future[RerankResult]
    novelty: float | None
    evaluations: int


class Service:
    """Service that answers questions: decoding and tier 1 on threads that clients share, tier 2 in an `AsyncReranker`.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    limits : Limits
        Bounds of requests and queue.
    metrics : ServerMetrics, optional
        Metrics of an earlier service, to go on with; `watch` makes its gauges this one's. Default: new ones.

    Attributes
    ----------
    requests : int
        Requests that `in_use` blocks are open for.

    Raises
    ------
    InvalidInputError
        If the classifier takes no images.
    """

    def __init__(self, clf: HybridClassifier, limits: Limits, metrics: ServerMetrics | None = None) -> None:
        check_image_shape(clf.image_shape_)
        self.clf, self.limits, self.requests = clf, limits, 0
        self.labels = RequestLabels(clf)
        self.metrics = metrics or ServerMetrics()
        self.stage = AsyncReranker(
            clf.reranker(),
            max_queue=limits.queue,
            max_candidates=max(limits.documents, len(clf.classes_)),
            observer=self.metrics,
        )
        self.gate = Admission(self.stage.capacity)
        self.budget = ByteBudget(limits.total_bytes)
        self.decoders = Decoders(limits.decoders, limits.decode_seconds, limits.pixels)
        # two pools, so that images of milliseconds never wait for those of seconds
        self._quick = FairExecutor(QUICK_THREADS, "hybridclf-quick")
        self._slow = FairExecutor(limits.decoders, "hybridclf-decode")
        if metrics is None:
            self.metrics.watch(self)

    def warm_up(self) -> None:
        """Ask both tiers about an empty image: the first request should not pay for what is built on first use."""
        item = as_item(Image.new("RGB", (64, 64)), self.clf.image_shape_, self.clf.pixel_range_)
        labels = tuple(self.clf.classes_[:2].tolist())
        self.stage.observer = None  # the metrics are those of requests
        with suppress(InvalidInputError):  # an empty image may be none to a model
            self.labels.log_prior(labels, item)
            self.stage.submit(item, labels, max_evaluations=len(labels)).result()
        self.stage.observer = self.metrics

    def close(self) -> None:
        """Answer accepted images, then end all threads and processes."""
        self._quick.shutdown()
        self._slow.shutdown()
        self.decoders.close()
        self.stage.close()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Count a request, in a `with` block on the event loop: until its end the service must not be closed."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def oldest_seconds(self) -> float:
        """Seconds that the oldest batch, decoding or call of tier 1 under way has taken so far."""
        return max(self.stage.busy_seconds, self._quick.oldest_seconds, self._slow.oldest_seconds)

    @property
    def alive(self) -> bool:
        """True unless a thread has died or is stuck, which only a restart can mend."""
        return self.stage.alive and self.oldest_seconds < self.limits.stuck_seconds

    @property
    def ready(self) -> bool:
        """True if requests should be sent here: nothing hangs, batches succeed, and the server is not draining."""
        hangs = self.oldest_seconds >= self.limits.stuck_seconds * UNREADY
        return self.stage.alive and not (hangs or self.stage.failing or self.gate.draining)

    # --- answering ----------------------------------------------------------------------------------------------------

    async def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer several questions, in order; if one is refused, all are."""
        tasks = [asyncio.ensure_future(self.answer(question)) for question in questions]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def answer(self, question: Question) -> Answer:
        """Answer one question by its deadline; cancelling the await removes the image.

        Raises
        ------
        InvalidInputError
            For an unreadable image, or labels that the model cannot use.
        """
        answer = await self._answer(question)
        if question.deadline is not None and monotonic() > question.deadline + TOLERANCE:
            self.metrics.deadline_misses.inc()
        return answer

    async def _answer(self, question: Question) -> Answer:
        executor = self._quick if is_quick(question.image) else self._slow
        size = claimed_pixels(question.image) or len(question.image)
        job = executor.submit(question.client, size, partial(self._hand_in, question))
        try:
            async with asyncio.timeout(question.seconds_left):
                handed_in = await asyncio.wrap_future(job)
        except TimeoutError:  # still waiting for a thread, being decoded or in tier 1
            job.add_done_callback(_take_out)
            # without the image: the question's own prior, or a uniform one
            log_prior = np.zeros(len(question.labels)) if question.log_prior is None else question.log_prior
            return Answer(self._prior(log_prior), 0, "deadline")
        except asyncio.CancelledError:
            job.add_done_callback(_take_out)
            raise
        try:
            result = await asyncio.wrap_future(handed_in.future)
        # the client's or the shutdown's fault, so tier 1 does not stand in
        except (ClosedError, InvalidInputError):
            raise
        except Exception:
            _log.exception("the denoiser failed on an image; tier 1 answers")
            return self._tier_1(handed_in, handed_in.evaluations, "fallback")
        evaluations = result.evaluations + handed_in.evaluations
        if result.stopped_by in TIER_1_ANSWERS:
            return self._tier_1(handed_in, evaluations, result.stopped_by)
        # the candidates share their part of the prior anew, and the other labels keep theirs
        posterior = self._prior(handed_in.log_prior)
        posterior[handed_in.candidates] = result.posterior * posterior[handed_in.candidates].sum()
        return Answer(posterior / posterior.sum(), evaluations, result.stopped_by, handed_in.novelty)

    def _hand_in(self, question: Question) -> _HandedIn:
        """Decode the image, ask tier 1 and submit the image to tier 2, on a thread of a pool."""
        with self.metrics.decode_seconds.time():
            item = read_item(question.image, self.clf, self.decoders)
        if question.hold is not None:
            question.hold.reserve(bytes_of(item))
        labels, log_prior = question.labels, question.log_prior
        # a request with a prior has chosen its candidates; else tier 1 shortlists them
        if log_prior is None:
            log_prior = self.labels.log_prior(labels, item)
            candidates = self.clf._shortlist(self._prior(log_prior)[None])[0]
        else:
            candidates = np.arange(len(labels))
        own = Items.of_one(item)
        novelty, evaluations = None, 0
        if question.may_reject and self.clf.reject is not None:
            p_values, costs = self.clf._p_values(own)
            novelty, evaluations = float(p_values[0]), int(costs[0])
        future = self.stage.submit(
            item,
            [labels[i] for i in candidates],
            log_prior[candidates],
            deadline=question.seconds_left,
            max_evaluations=question.max_evaluations,
            client=question.client,
            aside=self.clf._aside(own)[0],
        )
        return _HandedIn(log_prior, candidates, future, novelty, evaluations)

    def _tier_1(self, handed_in: _HandedIn, evaluations: int, stopped_by: str) -> Answer:
        log_prior = np.maximum(handed_in.log_prior, LOG_ZERO)[None]
        return Answer(self.clf.fusion_.tier_1(log_prior, stopped_by)[0], evaluations, stopped_by, handed_in.novelty)

    def _prior(self, log_prior: np.ndarray) -> np.ndarray:
        """Compute tier 1's probabilities `[L]` at the fusion's temperature."""
        return self.clf.fusion_.prior(np.maximum(log_prior, LOG_ZERO)[None])[0]


def _take_out(job: "Future[Any]") -> None:
    """Cancel an image whose caller was cancelled or timed out while submitting it."""
    if not job.cancelled() and job.exception() is None:
        job.result().future.cancel()
