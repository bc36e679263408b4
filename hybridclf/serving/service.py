"""Service of both tiers: it turns an image and its labels into an answer by a deadline."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from scipy.special import softmax

from ..data.image_files import check_image_shape
from ..errors import ClosedError, InvalidInputError
from ..estimator import HybridClassifier
from ..live.async_reranker import AsyncReranker
from ..ports import Label
from ..proposer import shortlist
from ..reranking.evidence import TIER_1_ANSWERS, RerankResult
from ..reranking.tasks import LOG_ZERO
from .admission import Admission
from .images import read_item
from .labels import RequestLabels
from .limits import Limits
from .prometheus import ServerMetrics

__all__ = ["Answer", "Question", "Service"]

TOLERANCE = 0.02
"""Seconds after the deadline from which an answer counts as late."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """Image to classify, with labels and bounds.

    Attributes
    ----------
    image : str or bytes
        Data URI, or the bytes of a file.
    labels : tuple of labels `[L]`
        Labels to choose from.
    log_prior : float array `[L]` or None
        Tier 1's log-probabilities. None: the model's own proposer computes them and shortlists the labels.
    deadline : float or None
        Deadline by `time.monotonic`.
    max_evaluations : int or None
        Most evaluations.
    """

    image: str | bytes
    labels: tuple[Label, ...]
    log_prior: np.ndarray | None = None
    deadline: float | None = None
    max_evaluations: int | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())


@dataclass(frozen=True)
class Answer:
    """Posterior of the labels `[L]`, its cost in evaluations, and the reason why re-ranking stopped."""

    posterior: np.ndarray
    evaluations: int
    stopped_by: str

    @property
    def degraded(self) -> bool:
        """True if a deadline or a failure cut the answer short."""
        return self.stopped_by in ("deadline", "fallback")


@dataclass(frozen=True)
class _HandedIn:
    """Image submitted to the loop.

    Attributes
    ----------
    prior, own : float array `[L]`
        Tier 1's probabilities of the labels, at the fusion's temperature and at its own.
    candidates : int array `[k]`
        Positions of the labels that tier 2 compares.
    future : Future
        Result to come.
    """

    prior: np.ndarray
    own: np.ndarray
    candidates: np.ndarray
    future: Future[RerankResult]


class Service:
    """Service that answers questions: decoding and tier 1 in a pool of threads, tier 2 in an `AsyncReranker`.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    limits : Limits
        Bounds of requests and queue.

    Raises
    ------
    InvalidInputError
        If the classifier takes no images.
    """

    def __init__(self, clf: HybridClassifier, limits: Limits) -> None:
        check_image_shape(clf.image_shape_)
        self.clf, self.limits = clf, limits
        self.labels = RequestLabels(clf)
        self.metrics = ServerMetrics()
        self.stage = AsyncReranker(
            clf.reranker(),
            max_queue=limits.queue,
            max_candidates=max(limits.documents, len(clf.classes_)),
            observer=self.metrics,
        )
        self.gate = Admission(self.stage.capacity)
        self.metrics.watch(self.stage, self.gate)
        self._pool = ThreadPoolExecutor(limits.decoders, "hybridclf-decode")

    def close(self) -> None:
        """Answer accepted images, then end all threads."""
        self._pool.shutdown()
        self.stage.close()

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
        job = self._pool.submit(self._hand_in, question)
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
            return Answer(handed_in.own, 0, "fallback")
        # tier 1's own probabilities, not tempered by the fusion
        if result.stopped_by in TIER_1_ANSWERS:
            return Answer(handed_in.own, result.evaluations, result.stopped_by)
        # the candidates share their part of the prior anew, and the other labels keep theirs
        posterior = handed_in.prior.copy()
        posterior[handed_in.candidates] = result.posterior * posterior[handed_in.candidates].sum()
        return Answer(posterior / posterior.sum(), result.evaluations, result.stopped_by)

    def _hand_in(self, question: Question) -> _HandedIn:
        """Decode the image, ask tier 1 and submit the image to tier 2, on a thread of the pool."""
        item = read_item(question.image, self.clf, self.limits.pixels)
        labels, log_prior = question.labels, question.log_prior
        # a request with a prior has chosen its candidates; else tier 1 shortlists them
        if log_prior is None:
            log_prior = self.labels.log_prior(labels, item)
            candidates = shortlist(self._prior(log_prior)[None], self.clf.top_k)[0]
        else:
            candidates = np.arange(len(labels))
        future = self.stage.submit(
            item,
            [labels[i] for i in candidates],
            log_prior[candidates],
            deadline=question.seconds_left,
            max_evaluations=question.max_evaluations,
        )
        return _HandedIn(self._prior(log_prior), softmax(np.maximum(log_prior, LOG_ZERO)), candidates, future)

    def _prior(self, log_prior: np.ndarray) -> np.ndarray:
        """Compute tier 1's probabilities `[L]` at the fusion's temperature."""
        return self.clf.fusion_.prior(np.maximum(log_prior, LOG_ZERO)[None])[0]


def _take_out(job: "Future[Any]") -> None:
    """Cancel an image whose caller was cancelled or timed out while submitting it."""
    if not job.cancelled() and job.exception() is None:
        job.result().future.cancel()
