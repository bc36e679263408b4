"""Images on their way through a live reranker, and the promises that each is answered once."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from ..reranking.evidence import RerankResult
from ..reranking.tasks import Task

__all__ = ["Answer", "Observer", "Request", "cancel_submitted", "logged_failures", "resolve"]

_log = logging.getLogger(__name__)


class Observer(Protocol):
    """What watches a live reranker; called on its threads, so it must be quick. What it raises is logged."""

    def batch(self, fill: float, seconds: float) -> None:
        """A batch was evaluated in so many seconds, of which this share, in (0, 1], was work, asked for or to come."""
        ...

    def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
        """An image was answered after so many seconds in the queue and in the loop."""
        ...


@dataclass(eq=False, slots=True)
class Request:
    """One image on its way: its task, when it arrived and when the loop took it in, and what was promised."""

    task: Task
    image: Any
    arrived: float
    admitted: float | None = None
    future: Future[RerankResult] = field(default_factory=Future)


Answer = tuple[Request, RerankResult | Exception]
"""A request, and what came of it."""


def resolve(answers: Iterable[Answer], observer: Observer | None) -> None:
    """Keep promises. To be called by whoever took the requests out of the books, so that each is kept once."""
    now = monotonic()
    for request, answer in answers:
        if not request.future.set_running_or_notify_cancel():
            continue
        if isinstance(answer, Exception):
            request.future.set_exception(answer)
            continue
        if observer:
            admitted = now if request.admitted is None else request.admitted
            with logged_failures():
                observer.answered(answer, admitted - request.arrived, now - admitted)
        request.future.set_result(answer)


@contextmanager
def logged_failures() -> Iterator[None]:
    """Tell an observer; what goes wrong there is its own affair."""
    try:
        yield
    except Exception:
        _log.exception("an observer has failed")


def cancel_submitted(job: asyncio.Future[Future[RerankResult]]) -> None:
    """Take the image out again that a job handed in for nobody."""
    if not job.cancelled() and job.exception() is None:
        job.result().cancel()
