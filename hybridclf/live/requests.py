"""Requests of a live reranker and the resolution of their futures."""

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
    """Observer of a live reranker, called on its threads: it must be quick, and its errors are logged."""

    def batch(self, fill: float, seconds: float) -> None:
        """Take note of an evaluated batch: its fill, in (0, 1], and its time."""
        ...

    def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
        """Take note of an answer: its result, and its seconds in the queue and in the loop."""
        ...


@dataclass(eq=False, slots=True)
class Request:
    """Image under way: its task, client, times of arrival and admission (by `time.monotonic`), and its future."""

    task: Task
    image: Any
    client: str
    arrived: float
    admitted: float | None = None
    future: Future[RerankResult] = field(default_factory=Future)


Answer = tuple[Request, RerankResult | Exception]
"""Request and its result, or the exception it ended with."""


def resolve(answers: Iterable[Answer], observer: Observer | None) -> None:
    """Resolve the futures of some requests. The caller has removed them from the tables, so each is resolved once."""
    now = monotonic()
    for request, answer in answers:
        if not request.future.set_running_or_notify_cancel():  # cancelled in the meantime
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
    """Log any exception of an observer instead of raising it, in a `with` block."""
    try:
        yield
    except Exception:
        _log.exception("an observer has failed")


def cancel_submitted(job: asyncio.Future[Future[RerankResult]]) -> None:
    """Cancel an image whose caller was cancelled while submitting it."""
    if not job.cancelled() and job.exception() is None:
        job.result().cancel()
