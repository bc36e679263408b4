"""Live re-ranking: `AsyncReranker` takes images from any thread while the loop runs."""

import asyncio
import atexit
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Condition, Lock, Thread, current_thread
from time import monotonic
from typing import Any

import numpy as np

from ..errors import ClosedError, InvalidInputError, QueueFullError
from ..ports import Label
from ..reranker import Reranker
from ..reranking.evidence import RerankResult
from ..reranking.tasks import Task, as_log_prior, check_task, prior_result, uniform_prior
from ..utils.bounds import check_number, check_whole
from .deadlines import Deadlines
from .fault_isolation import FaultIsolation
from .requests import Answer, Observer, Request, cancel_submitted, logged_failures, resolve
from .turns import Turns

__all__ = ["AsyncReranker"]

_log = logging.getLogger(__name__)


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

    Attributes
    ----------
    capacity : int
        Most images at a time, in the loop and in the queue together.

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
        self.reranker, self.max_candidates, self.observer = reranker, max_candidates, observer
        self._images: dict[int, Any] = {}
        self._loop = reranker.loop(self._images, (), max_candidates)
        self._evaluate = FaultIsolation(self._loop.evaluate)
        self._loop.evaluate = self._evaluate
        # labels with a condition already; others are encoded on the submitting thread, one at a time
        self._known = frozenset(reranker.condition(())[0])
        self._encoding = Lock()
        self.capacity = self._loop.window.n_slots + max_queue
        self._numbers = count()
        # guards the tables of requests below; a request leaves them before it is resolved, hence only once
        self._changed = Condition(Lock())
        self._waiting: dict[int, Request] = {}
        self._under_way: dict[int, Request] = {}
        self._turns = Turns(self.capacity)
        self._given_up: list[int] = []
        self._closed = False
        self._busy_since: float | None = None
        self._alarms = Deadlines(self._expire)
        self._thread = Thread(target=self._run, name="hybridclf-reranker", daemon=True)
        self._thread.start()
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
        with self._changed:
            self._check_open()
        if aside is None:
            one = image[None] if isinstance(image, np.ndarray) else [image]
            aside = self.reranker.sets_aside(one)[0] if self.reranker.sets_aside else ""
        request = Request(self._task(candidates, log_prior, max_evaluations, aside), image, client, arrived)
        number = request.task.image
        if (settled := self._loop.settled(request.task)) is not None:
            resolve([(request, settled)], self.observer)
            return request.future
        if isinstance(image, np.ndarray):  # the loop reads it later, when a camera's buffer may hold the next frame
            request.image = image.copy()
        with self._changed:
            self._check_open()
            here = (other.task.turn for table in (self._waiting, self._under_way) for other in table.values())
            request.task = replace(request.task, turn=self._turns.take(client, here))
            self._waiting[number] = request
            self._changed.notify()
        request.future.add_done_callback(partial(self._withdraw, number))
        if deadline is not None and not request.future.done():
            self._alarms.set(number, arrived + deadline)
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

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the reranker is closed and takes no more images; make a new AsyncReranker")
        if len(self._waiting) + len(self._under_way) >= self.capacity:
            raise QueueFullError(f"{self.capacity} images wait or are under way already; ask again later")

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
    def waiting(self) -> int:
        """Number of images that wait for a place in the loop."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Number of images in the loop."""
        return len(self._under_way)

    @property
    def alive(self) -> bool:
        """True while images are accepted and the loop runs."""
        return not self._closed and self._thread.is_alive() and self._alarms.thread.is_alive()

    @property
    def failing(self) -> bool:
        """True if the last several batches have all failed; images are still accepted, as one may succeed."""
        return self.failing_seconds is not None

    @property
    def failing_seconds(self) -> float | None:
        """Seconds for which it has been `failing`; None if it is not."""
        return self._evaluate.streak.seconds

    @property
    def busy_seconds(self) -> float:
        """Seconds that the batch under way has taken so far; 0 between batches. A hung denoiser makes it grow."""
        since = self._busy_since
        return 0.0 if since is None else monotonic() - since

    def close(self, drain: bool = True) -> None:
        """Accept no more images, and return when the threads have ended (at once if called by a future's callback).

        Parameters
        ----------
        drain : bool
            Answer the accepted images first. Otherwise their futures are cancelled.
        """
        with self._changed:
            self._closed = True
            dropped = [] if drain else [*self._waiting.values(), *self._under_way.values()]
            self._changed.notify()
        for request in dropped:
            request.future.cancel()
        if current_thread() not in (self._thread, self._alarms.thread):  # a thread cannot wait for its own end
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> "AsyncReranker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close(drain=error[0] is None)

    # --- the loop's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        # a SystemExit in the denoiser, too, must leave nobody waiting
        except BaseException as error:
            _log.exception("the reranking loop has failed")
            self._fail(error)
        finally:
            self._alarms.close()

    def _turn(self) -> bool:
        """Admit waiting images, evaluate a batch and answer finished images; False once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._under_way or self._given_up or self._closed)
            self._give_up()
            if not self._waiting and not self._under_way:
                return not self._closed
            self._busy_since = monotonic()
            settled = self._let_in()
            batch = self._loop.fill() if self._under_way else None
        # futures are resolved, and the batch evaluated, outside of the lock: callbacks and submissions may need it
        resolve(settled, self.observer)
        if batch is None:
            self._busy_since = None
            return True
        start = monotonic()
        errors = self._loop.evaluate(batch)()
        self._busy_since = None
        if self.observer:
            with logged_failures():
                self.observer.batch(self._loop.capacity.fullness(batch), monotonic() - start)
        with self._changed:
            done = self._done(self._loop.record(batch, errors).finished)
        resolve(done, self.observer)
        return True

    def _let_in(self) -> list[Answer]:
        """Move images from the queue to the loop; return the answers of images that finish at once."""
        settled: list[Answer] = []
        # again and again, since an image that finishes at once leaves its place free
        while self._waiting and (free := self._loop.free):
            by_turn = sorted(
                self._waiting, key=lambda number: self._waiting[number].task.turn
            )  # and, stably, by arrival
            arrivals = [(number, self._waiting.pop(number)) for number in by_turn[:free]]
            now = monotonic()
            for number, request in arrivals:
                request.admitted = now
                self._under_way[number] = request
                self._images[number] = request.image
            settled += self._admit(arrivals)
        return settled

    def _admit(self, arrivals: list[tuple[int, Request]]) -> list[Answer]:
        """Admit images to the loop; if that raises, admit them one by one, so that a bad image costs only itself."""
        try:
            return self._done(self._loop.admit([request.task for _, request in arrivals]).finished)
        except Exception as error:
            self._loop.evict([number for number, _ in arrivals])
            if len(arrivals) > 1:
                return [answer for arrival in arrivals for answer in self._admit([arrival])]
            number, request = arrivals[0]
            del self._images[number], self._under_way[number]
            return [(request, error)]

    def _done(self, finished: Iterable[tuple[int, RerankResult]]) -> list[Answer]:
        """Remove finished images from the tables; return the answers of images without one so far."""
        answers: list[Answer] = []
        for number, result in finished:
            self._images.pop(number)
            failure = self._evaluate.failures.pop(number, None)
            if request := self._under_way.pop(number, None):
                answers.append((request, result if failure is None else failure))
        return answers

    def _give_up(self) -> None:
        """Free the places of images that were answered at their deadline or cancelled."""
        self._loop.evict(self._given_up)
        for number in self._given_up:
            self._images.pop(number, None)
        self._given_up.clear()

    def _fail(self, error: BaseException) -> None:
        """Close, and hand the error of the loop to all images."""
        self._busy_since = None
        if isinstance(error, Exception):
            failure = error
        else:  # a SystemExit would end the threads that read the futures, too
            failure = ClosedError(f"the reranking loop has ended with {type(error).__name__}; make a new AsyncReranker")
        with self._changed:
            self._closed = True
            requests = [*self._waiting.values(), *self._under_way.values()]
            self._waiting.clear()
            self._under_way.clear()
        resolve([(request, failure) for request in requests], self.observer)

    # --- deadlines and cancellation -----------------------------------------------------------------------------------

    def _expire(self, number: int) -> None:
        """Answer an image at its deadline by the evidence so far."""
        with self._changed:
            if request := self._waiting.pop(number, None):
                result = prior_result(request.task, self._loop.fusion, "deadline")
            elif request := self._under_way.pop(number, None):
                result = self._loop.best(number, "deadline")
                self._given_up.append(number)  # only the loop's thread may free its place
                self._changed.notify()
            else:  # answered or cancelled in the meantime
                return
        resolve([(request, result)], self.observer)

    def _withdraw(self, number: int, future: Future[RerankResult]) -> None:
        """Clean up after a future is done; if it was cancelled, remove its image."""
        self._alarms.cancel(number)
        if future.cancelled():
            with self._changed:
                self._waiting.pop(number, None)
                if self._under_way.pop(number, None):
                    self._given_up.append(number)
                    self._changed.notify()
