"""Live re-ranking: `AsyncReranker` takes images from any thread while the loop runs."""

import asyncio
import atexit
import math
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from itertools import count
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..ports import Label
from ..reranker import Reranker
from ..reranking.evidence import RerankResult
from ..reranking.tasks import Task, as_log_prior, check_task, uniform_prior
from ..utils.bounds import check_number, check_whole
from .loop_thread import LoopThread
from .requests import Observer, Request, cancel_submitted

__all__ = ["AsyncReranker"]


class AsyncReranker:
    """Reranker that takes images one by one, from any thread, and answers each as soon as it is done.

    A prior that is sure enough is the answer at once. All other images go through the loop of the offline `Reranker` on
    one thread, where a new arrival joins the running batch at the next trial, and named clients take turns. A second
    thread keeps the deadlines. An image on which the denoiser raises costs only itself: its `Future` gets the
    exception. Callbacks of the futures run on these threads or on the submitting one, and should be quick.

    Parameters
    ----------
    reranker : Reranker
        Tier 2, such as `clf.reranker()`; the loop owns it from now on.
    max_queue : int
        Most images that wait for a place in the loop, at least 0.
    max_candidates : int
        Longest accepted list of candidates, at least 1.
    observer : Observer, optional
        Receiver of the figures of every batch and answer.

    Raises
    ------
    InvalidInputError
        For bounds that are no whole numbers in range.

    Examples
    --------
    >>> with AsyncReranker(clf.reranker()) as stage:  # doctest: +SKIP
    ...     future = stage.submit(image, ["cat", "dog"], [-0.6, -0.8], deadline=0.2)
    ...     print(future.result().ranking)
    """

    def __init__(
        self,
        reranker: Reranker,
        *,
        max_queue: int = 128,
        max_candidates: int = 100,
        observer: Observer | None = None,
    ) -> None:
        check_whole("max_queue", max_queue, 0)
        check_whole("max_candidates", max_candidates, 1)
        self.reranker, self.max_candidates = reranker, max_candidates
        self._numbers = count()
        # labels with a condition already; others are encoded on the submitting thread, one at a time
        self._known = frozenset(reranker.condition(())[0])
        self._encoding = Lock()
        self._loop = LoopThread(reranker, max_queue, max_candidates, observer)
        atexit.register(self.close, drain=False)

    # --- asking -------------------------------------------------------------------------------------------------------

    def submit(
        self,
        image: Any,
        candidates: Sequence[Label],
        log_prior: Sequence[float] | np.ndarray | None = None,
        *,
        deadline: float | None = None,
        max_evaluations: int | None = None,
        client: str = "",
        aside: str | None = None,
    ) -> Future[RerankResult]:
        """Submit one image, from any thread.

        Parameters
        ----------
        image : image
            Image in any form that the denoiser encodes. An array is copied, so its buffer may be used anew at once.
        candidates : sequence of k labels
            Classes to compare. Labels that the reranker has not encoded yet are encoded in this call.
        log_prior : float sequence `[k]`, optional
            Tier 1's log-probabilities of the candidates. Default: uniform.
        deadline : float, optional
            Seconds from now, at least 0. When they are over, the best answer so far is returned with `stopped_by`
            "deadline"; it is tier 1's order if nothing was evaluated. Infinity means no deadline.
        max_evaluations : int, optional
            Most evaluations for this image.
        client : str
            Name of the client. However many images one client has here, another's first is soon in a batch.
        aside : str, optional
            Reason why tier 1 answers, as in `Reranker.rerank`; "" to ask tier 2. Default: the reranker tells.

        Returns
        -------
        concurrent.futures.Future of RerankResult
            Cancelling it removes the image from the queue or the loop.

        Raises
        ------
        InvalidInputError
            For candidates, a prior or bounds that make no sense.
        UnknownLabelError
            If the denoiser does not know a label.
        QueueFullError
            If the queue is full.
        ClosedError
            After `close`.
        """
        arrived = monotonic()
        if deadline is not None and not (isinstance(deadline, float) and deadline == math.inf):
            check_number("deadline", deadline, at_least=0)
        self._loop.check_open()
        if aside is None:
            one = image[None] if isinstance(image, np.ndarray) else [image]
            aside = self.reranker.sets_aside(one)[0] if self.reranker.sets_aside else ""
        request = Request(self._task(candidates, log_prior, max_evaluations, aside), image, client, arrived)
        if self._loop.settle(request):
            return request.future
        if isinstance(image, np.ndarray):  # the loop reads it later, when a camera's buffer may hold the next frame
            request.image = image.copy()
        self._loop.put(request, None if deadline is None else arrived + deadline)
        return request.future

    async def rerank(
        self,
        image: Any,
        candidates: Sequence[Label],
        log_prior: Sequence[float] | np.ndarray | None = None,
        *,
        deadline: float | None = None,
        max_evaluations: int | None = None,
        client: str = "",
        aside: str | None = None,
    ) -> RerankResult:
        """Submit one image as `submit` does and await its result; cancelling the await removes the image."""
        options: dict[str, Any] = {"deadline": deadline, "max_evaluations": max_evaluations}
        hand_in = partial(self.submit, image, candidates, log_prior, client=client, aside=aside, **options)
        if self._known.issuperset(candidates):
            return await asyncio.wrap_future(hand_in())
        # encoding new labels may take long, so it must not block the event loop
        job = asyncio.ensure_future(asyncio.to_thread(hand_in))
        try:
            return await asyncio.wrap_future(await asyncio.shield(job))
        except asyncio.CancelledError:
            job.add_done_callback(cancel_submitted)  # the thread cannot be stopped, but its image can be removed
            raise

    def _task(self, candidates: Sequence[Label], log_prior: Any, max_evaluations: int | None, aside: str) -> Task:
        """Make a checked task of the arguments, with the condition of labels that the loop may not know."""
        if isinstance(candidates, str):  # a sequence, too: of letters
            raise InvalidInputError(f"candidates must be a list of labels, got the text {candidates!r}")
        labels = tuple(candidates)
        if len(labels) > self.max_candidates:
            raise InvalidInputError(f"got {len(labels)} candidates, at most {self.max_candidates} are taken")
        prior = uniform_prior(labels) if log_prior is None else as_log_prior(log_prior, "the image").copy()
        check_task(Task(-1, labels, prior, max_evaluations, aside=aside), "the image")
        condition = None
        if not self._known.issuperset(labels):
            with self._encoding:
                condition = self.reranker.denoiser.condition(list(labels))
        return Task(next(self._numbers), labels, prior, max_evaluations, condition, aside)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def observer(self) -> Observer | None:
        """Receiver of the figures of every batch and answer; it may be changed at any time."""
        return self._loop.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._loop.observer = observer

    @property
    def capacity(self) -> int:
        """Most images at a time, in the loop and in the queue together."""
        return self._loop.capacity

    @property
    def waiting(self) -> int:
        """Number of images that wait for a place in the loop."""
        return self._loop.waiting

    @property
    def under_way(self) -> int:
        """Number of images in the loop."""
        return self._loop.under_way

    @property
    def alive(self) -> bool:
        """True while images are accepted and the loop runs."""
        return self._loop.alive

    @property
    def failing(self) -> bool:
        """True if the last several batches have all failed; images are still accepted, as one may succeed."""
        return self.failing_seconds is not None

    @property
    def failing_seconds(self) -> float | None:
        """Seconds for which it has been `failing`; None if it is not."""
        return self._loop.evaluate.streak.seconds

    @property
    def busy_seconds(self) -> float:
        """Seconds that the batch under way has taken so far; 0 between batches. A hung denoiser makes it grow."""
        return self._loop.busy_seconds

    def close(self, drain: bool = True) -> None:
        """Accept no more images, and return when the threads have ended (at once if called by a future's callback).

        Parameters
        ----------
        drain : bool
            Answer the accepted images first. Otherwise their futures are cancelled.
        """
        self._loop.close(drain)
        atexit.unregister(self.close)

    def __enter__(self) -> "AsyncReranker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close(drain=error[0] is None)
