"""Prometheus metrics of a server."""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..reranking.evidence import RerankResult

if TYPE_CHECKING:
    from .questions import Answer
    from .service import Service

__all__ = ["ServerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_EVALUATIONS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SHARES = tuple(i / 10 for i in range(1, 11))
_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class ServerMetrics:
    """Prometheus metrics of one server, and observer of its reranker.

    Where the environment variable `PROMETHEUS_MULTIPROC_DIR` names a folder before prometheus_client is imported, the
    text is that of all processes that share the folder; gauges are then as of the last request of each, and the
    process's own memory and time are left out.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        count, spread = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        seconds, state = partial(spread, buckets=_SECONDS), partial(Gauge, registry=registry)
        total, oldest = (partial(state, multiprocess_mode=mode) for mode in ("livesum", "livemax"))
        self.requests = count("hybridclf_requests", "Requests by outcome.", ["endpoint", "outcome"])
        self.request_seconds = seconds(
            "hybridclf_request_seconds", "Time from a request's header to its answer.", ["endpoint", "outcome"]
        )
        self.deadline_misses = count("hybridclf_deadline_misses", "Answers more than 20 ms behind their deadline.")
        self.queue_depth = total("hybridclf_queue_depth", "Images accepted and not in the loop.")
        self.under_way = total("hybridclf_images_under_way", "Images in the loop.")
        self.batch_fill = spread("hybridclf_batch_fill", "Share of a batch that was work.", buckets=_SHARES)
        self.batch_seconds = seconds("hybridclf_batch_seconds", "Time that a batch takes the denoiser.")
        self.evaluations = spread("hybridclf_evaluations_per_image", "Denoiser evaluations.", buckets=_EVALUATIONS)
        self.stopped_by = count("hybridclf_images", "Images by why their answer ended.", ["stopped_by"])
        self.queue_seconds = seconds("hybridclf_queue_seconds", "Time of an image in the queue.")
        self.loop_seconds = seconds("hybridclf_loop_seconds", "Time of an image in the loop.")
        self.decode_seconds = seconds("hybridclf_decode_seconds", "Time to decode an image.")
        self.bytes_held = total("hybridclf_bytes_held", "Bytes of bodies and images in the server.")
        self.oldest_seconds = oldest("hybridclf_oldest_seconds", "Age of the oldest batch, decoding or call of tier 1.")
        self.decoders_lost = count("hybridclf_decoders_lost", "Decoding processes that an image has cost.")
        self._services: Sequence[Service] = ()
        self._counted: WeakKeyDictionary[Service, int] = WeakKeyDictionary()  # lost decoders of each

    def watch(self, services: "Sequence[Service]") -> None:
        """Read the state of these services from now on, of which there may come to be more or fewer."""
        self._services = services

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Record a request that has ended."""
        self.requests.labels(endpoint, outcome).inc()
        self.request_seconds.labels(endpoint, outcome).observe(seconds)
        self._read_state()

    def _read_state(self) -> None:
        services = list(self._services)
        self.bytes_held.set(sum(service.budget.held for service in services))
        self.oldest_seconds.set(max((service.oldest_seconds for service in services), default=0.0))
        self.under_way.set(sum(service.stage.under_way for service in services))
        # both counters change on other threads, so the difference may be negative for a moment
        self.queue_depth.set(sum(max(0, service.gate.inside - service.stage.under_way) for service in services))
        for service in services:
            lost = service.decoders.lost
            self.decoders_lost.inc(lost - self._counted.get(service, 0))
            self._counted[service] = lost

    def batch(self, fill: float, seconds: float) -> None:
        """Record an evaluated batch: its fill, in (0, 1], and its time."""
        self.batch_fill.observe(fill)
        self.batch_seconds.observe(seconds)

    def image(self, answer: "Answer") -> None:
        """Record the answer to an image, whichever tier it is from."""
        self.evaluations.observe(answer.evaluations)
        self.stopped_by.labels(answer.stopped_by).inc()

    def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
        """Record the seconds of an image in the queue and in the loop; its result is counted by `image`."""
        self.queue_seconds.observe(waited)
        self.loop_seconds.observe(under_way)

    def text(self) -> bytes:
        """Metrics in Prometheus's text format."""
        self._read_state()
        registry = self._registry
        if _SHARED_FOLDER in os.environ:
            MultiProcessCollector(registry := CollectorRegistry())
        return generate_latest(registry)

    def close(self) -> None:
        """Take this process's gauges out of what other processes tell."""
        if _SHARED_FOLDER in os.environ:
            mark_process_dead(os.getpid())
