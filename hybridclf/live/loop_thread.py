"""Thread that runs the reranking loop over requests that come in from any thread."""

import logging
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Condition, Lock, Thread, current_thread
from time import monotonic
from typing import Any

from ..errors import ClosedError, QueueFullError
from ..reranker import Reranker
from ..reranking.evidence import RerankResult
from ..reranking.tasks import prior_result
from .deadlines import Deadlines
from .fault_isolation import FaultIsolation
from .requests import Answer, Observer, Request, logged_failures, resolve
from .turns import Turns

__all__ = ["LoopThread"]

_log = logging.getLogger(__name__)


class LoopThread:
    """Thread that runs the reranking loop over requests that come in from any thread, and resolves their futures.

    A request waits for a place in the loop, then is under way. A second thread keeps the deadlines.

    Parameters
    ----------
    reranker : Reranker
        Tier 2; the loop owns it from now on.
    max_queue : int
        Most requests that wait for a place.
    max_candidates : int
        Most candidates of a request.
    observer : Observer, optional
        Receiver of the figures of every batch and answer.

    Attributes
    ----------
    capacity : int
        Most requests at a time, waiting and under way together.
    evaluate : FaultIsolation
        Evaluator of the batches.
    thread : Thread
        The thread, which ends when the loop is closed and empty, or has failed.
    """

    def __init__(self, reranker: Reranker, max_queue: int, max_candidates: int, observer: Observer | None) -> None:
        self.observer = observer
        self._images: dict[int, Any] = {}
        self._loop = reranker.loop(self._images, (), max_candidates)
        self.evaluate = FaultIsolation(self._loop.evaluate)
        self._loop.evaluate = self.evaluate
        self.capacity = self._loop.window.n_slots + max_queue
        # guards the tables of requests below; a request leaves them before it is resolved, hence only once
        self._changed = Condition(Lock())
        self._waiting: dict[int, Request] = {}
        self._under_way: dict[int, Request] = {}
        self._turns = Turns(self.capacity)
        self._given_up: list[int] = []
        self._closed = False
        self._busy_since: float | None = None
        self._alarms = Deadlines(self._expire)
        self.thread = Thread(target=self._run, name="hybridclf-reranker", daemon=True)
        self.thread.start()

    # --- requests -----------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Check that a request may come in now.

        Raises
        ------
        QueueFullError
            If the queue is full.
        ClosedError
            After `close`.
        """
        with self._changed:
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the reranker is closed and takes no more images; make a new AsyncReranker")
        if len(self._waiting) + len(self._under_way) >= self.capacity:
            raise QueueFullError(f"{self.capacity} images wait or are under way already; ask again later")

    def settle(self, request: Request) -> bool:
        """Resolve a request that its prior answers, without a place in the queue; False if tier 2 must be asked."""
        result = self._loop.settled(request.task)
        if result is not None:
            resolve([(request, result)], self.observer)
        return result is not None

    def put(self, request: Request, deadline: float | None) -> None:
        """Put a request into the queue, in its client's turn, with a deadline by `time.monotonic`; as `check_open`."""
        number = request.task.image
        with self._changed:
            self._check_open()
            here = (other.task.turn for table in (self._waiting, self._under_way) for other in table.values())
            request.task = replace(request.task, turn=self._turns.take(request.client, here))
            self._waiting[number] = request
            self._changed.notify()
        request.future.add_done_callback(partial(self._withdraw, number))
        if deadline is not None and not request.future.done():
            self._alarms.set(number, deadline)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a place in the loop."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Number of requests in the loop."""
        return len(self._under_way)

    @property
    def alive(self) -> bool:
        """True while requests are accepted and both threads run."""
        return not self._closed and self.thread.is_alive() and self._alarms.thread.is_alive()

    @property
    def busy_seconds(self) -> float:
        """Seconds that the batch under way has taken so far; 0 between batches."""
        since = self._busy_since
        return 0.0 if since is None else monotonic() - since

    def close(self, drain: bool) -> None:
        """Accept no more requests, and return when the threads have ended (at once if called by a future's callback).

        Parameters
        ----------
        drain : bool
            Answer the accepted requests first. Otherwise their futures are cancelled.
        """
        with self._changed:
            self._closed = True
            dropped = [] if drain else [*self._waiting.values(), *self._under_way.values()]
            self._changed.notify()
        for request in dropped:
            request.future.cancel()
        if current_thread() not in (self.thread, self._alarms.thread):  # a thread cannot wait for its own end
            self.thread.join()

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
            # and, stably, by arrival
            by_turn = sorted(self._waiting, key=lambda number: self._waiting[number].task.turn)
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
            failure = self.evaluate.failures.pop(number, None)
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
