"""Service of both tiers: it turns an image and its labels into an answer by a deadline."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette

from ..data.arrays import Items
from ..data.decoders import Decoders, is_quick
from ..data.decoding import claimed_pixels
from ..data.image_files import as_item, check_image_shape
from ..errors import ClosedError, InvalidInputError
from ..estimator import HybridClassifier
from ..live.async_reranker import AsyncReranker
from ..live.fault_isolation import FailureStreak
from ..ports import n_prompts
from ..reranking.evidence import RerankResult
from ..reranking.tasks import LOG_ZERO
from .admission import Admission
from .byte_budget import ByteBudget
from .fair_executor import FairExecutor
from .images import bytes_of, image_named, read_item
from .labels import RequestLabels
from .limits import UNREADY, Limits
from .prometheus import ServerMetrics
from .questions import Answer, HandedIn, Question

__all__ = ["Service", "service_of"]

QUICK_THREADS = 2
"""Threads for small images."""

TOLERANCE = 0.02
"""Seconds after the deadline from which an answer counts as late."""

RETRY_SECONDS = 5.0
"""Seconds between two trials of a model that fails."""

HEADER_BYTES = 2**18
"""Bytes of a file that are searched for its number of pixels.

A JPEG has it behind its EXIF data, of at most 64 KiB, and its colour profile. Few profiles are larger than the rest,
and such a file is queued by its bytes, which orders it as well. The search holds up all requests: 10 MB of 0xff would
take a quarter of a second, so many bytes take 4 milliseconds.
"""

_log = logging.getLogger(__name__)


class Service:
    """Service that answers questions: decoding and tier 1 on threads that clients share, tier 2 in an `AsyncReranker`.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    limits : Limits
        Bounds of requests and queue.
    metrics : ServerMetrics, optional
        Metrics of an earlier service, to go on with. Default: new ones.

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
        self._novelty_streak = FailureStreak()
        self._closing = Event()
        self._retrying = Thread(target=self._retry, name="hybridclf-retry", daemon=True)
        self._retrying.start()

    def warm_up(self) -> None:
        """Start all decoders, and ask both tiers about an empty image, so that no request pays for a first use."""
        self.decoders.start()
        self.stage.observer = None  # the metrics are those of requests
        with suppress(InvalidInputError):  # an empty image may be none to a model
            self._try_out()
        self.stage.observer = self.metrics

    def _try_out(self) -> None:
        """Ask all that requests ask, about an empty image and in a single trial."""
        item = as_item(Image.new("RGB", (64, 64)), self.clf.image_shape_, self.clf.pixel_range_)
        # the first label leads a uniform prior: one that tier 2 is asked about, if there is any
        labels = sorted(self.clf.classes_.tolist(), key=lambda label: not self.clf.fusion_.asks(label))[:2]
        self.labels.log_prior(tuple(labels), item)
        self._novelty(item)
        number, conditions = self.stage.reranker.condition(labels)
        one_trial = len(labels) * n_prompts(conditions, len(number))
        self.stage.submit(item, labels, max_evaluations=one_trial, aside="").result()

    def _retry(self) -> None:
        """Try out a model that fails until it works, on a thread: it gets no more requests that could show it."""
        while not self._closing.wait(RETRY_SECONDS):
            if self.failing_seconds is None:
                continue
            try:
                self._try_out()
            except Exception as error:
                _log.warning("the model still fails: %s", error)
            else:
                _log.warning("the model works again")

    def close(self) -> None:
        """Answer accepted images, then end all threads and processes."""
        self._closing.set()
        self._quick.shutdown()
        self._slow.shutdown()
        self.decoders.close()
        self.stage.close()
        self._retrying.join()

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
    def failing_seconds(self) -> float | None:
        """Seconds for which the denoiser has failed whatever it was asked; None if it has not."""
        streaks = (self.stage.failing_seconds, self._novelty_streak.seconds)
        return max((seconds for seconds in streaks if seconds is not None), default=None)

    @property
    def stuck(self) -> bool:
        """True if a thread hangs, which only a restart can mend."""
        return self.oldest_seconds >= self.limits.stuck_seconds

    @property
    def alive(self) -> bool:
        """True unless a thread has died or hangs, or all has failed for long: a restart may mend it."""
        return self.stage.alive and not self.stuck and (self.failing_seconds or 0) < self.limits.stuck_seconds

    @property
    def ready(self) -> bool:
        """True if requests should be sent here: nothing hangs, batches succeed, and the server is not draining."""
        hangs = self.oldest_seconds >= self.limits.stuck_seconds * UNREADY
        return self.stage.alive and not (hangs or self.failing_seconds is not None or self.gate.draining)

    # --- answering ----------------------------------------------------------------------------------------------------

    async def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer several questions, in order; if one is refused, all are, and the refusal says which it was."""
        n = len(questions)
        tasks = [asyncio.ensure_future(self._numbered(i, n, question)) for i, question in enumerate(questions)]
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
        self.metrics.image(answer)
        if question.deadline is not None and monotonic() > question.deadline + TOLERANCE:
            self.metrics.deadline_misses.inc()
        return answer

    async def _numbered(self, i: int, n: int, question: Question) -> Answer:
        with image_named(i, n):
            return await self.answer(question)

    async def _answer(self, question: Question) -> Answer:
        executor = self._quick if is_quick(question.image) else self._slow
        size = claimed_pixels(question.image[:HEADER_BYTES]) or len(question.image)
        job = executor.submit(question.client, size, partial(self._hand_in, question))
        try:
            async with asyncio.timeout(question.seconds_left):
                handed_in = await asyncio.wrap_future(job)
        except TimeoutError:  # still waiting for a thread, being decoded or in tier 1
            if job.done() and not job.cancelled() and (error := job.exception()) is not None:
                raise error from None  # tier 1, which may ask other servers, has a TimeoutError of its own
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
            posterior = self._prior(handed_in.log_prior)
            return Answer(posterior, handed_in.evaluations, "fallback", handed_in.novelty)
        log_prior = np.maximum(handed_in.log_prior, LOG_ZERO)[None]
        posterior = self.clf.fusion_.over_all_classes(log_prior, [handed_in.candidates], [result])[0]
        evaluations = result.evaluations + handed_in.evaluations
        return Answer(posterior, evaluations, result.stopped_by, handed_in.novelty)

    def _hand_in(self, question: Question) -> HandedIn:
        """Decode the image, ask tier 1 and submit the image to tier 2, on a thread of a pool."""
        with self.metrics.decode_seconds.time():
            item = read_item(question.image, self.clf, self.decoders)
        if question.hold is not None:
            question.hold.reserve(bytes_of(item))
        log_prior, candidates = self._proposed(question, item)
        try:
            novelty, evaluations = self._novelty(item, log_prior[None]) if question.may_reject else (None, 0)
        except InvalidInputError:
            raise
        except Exception as error:  # as if tier 2 had failed, which asks the same denoiser
            failed: Future[RerankResult] = Future()
            failed.set_exception(error)
            return HandedIn(log_prior, candidates, failed, None, 0)
        future = self.stage.submit(
            item,
            [question.labels[i] for i in candidates],
            log_prior[candidates],
            deadline=question.seconds_left,
            max_evaluations=question.max_evaluations,
            client=question.client,
            aside=self.clf._aside(Items.of_one(item))[0],
        )
        return HandedIn(log_prior, candidates, future, novelty, evaluations)

    def _proposed(self, question: Question, item: Any) -> tuple[np.ndarray, np.ndarray]:
        """Tier 1's log-probabilities `[L]` of the labels, and the positions `[k]` of the candidates."""
        if question.log_prior is not None:  # who sends a prior has chosen the candidates
            return question.log_prior, np.arange(len(question.labels))
        log_prior = self.labels.log_prior(question.labels, item)
        return log_prior, self.clf._shortlist(self._prior(log_prior)[None])[0]

    def _novelty(self, item: Any, log_prior: np.ndarray | None = None) -> tuple[float | None, int]:
        """P-value that an image is one of the model's classes, and its cost in evaluations; None if it rejects none.

        The candidates among many classes follow from tier 1's log-probabilities `[1, C]`.
        """
        if self.clf.reject is None:
            return None, 0
        try:
            p_values, costs = self.clf._p_values(Items.of_one(item), log_prior)
        except InvalidInputError:  # of the image, not the denoiser
            raise
        except Exception:
            self._novelty_streak.note(failed=True)
            raise
        self._novelty_streak.note(failed=False)
        return float(p_values[0]), int(costs[0])

    def _prior(self, log_prior: np.ndarray) -> np.ndarray:
        """Compute tier 1's probabilities `[L]` at the fusion's temperature."""
        return self.clf.fusion_.prior(np.maximum(log_prior, LOG_ZERO)[None])[0]


def service_of(app: Starlette) -> Service:
    """Service of an application that has started.

    Raises
    ------
    ClosedError
        If it has not.
    """
    service: Service | None = getattr(app.state, "service", None)
    if service is None:
        raise ClosedError(
            "the server has not started: what serves it must run its lifespan, as uvicorn does; an application that "
            "mounts it does that in its own: async with served.router.lifespan_context(served)"
        )
    return service


def _take_out(job: "Future[Any]") -> None:
    """Cancel an image whose caller was cancelled or timed out while submitting it."""
    if not job.cancelled() and job.exception() is None:
        job.result().future.cancel()
