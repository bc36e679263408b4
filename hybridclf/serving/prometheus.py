"""Prometheus metrics of a server."""

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..reranking.evidence import RerankResult

if TYPE_CHECKING:
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
        self.requests = Counter(
            "hybridclf_requests", "Requests by outcome.", ["endpoint", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "hybridclf_request_seconds",
            "Time from a request's header to its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.deadline_misses = Counter(
            "hybridclf_deadline_misses", "Answers more than 20 ms behind their deadline.", registry=registry
        )
        self.queue_depth = Gauge(
            "hybridclf_queue_depth",
            "Images accepted and not in the loop.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.under_way = Gauge(
            "hybridclf_images_under_way", "Images in the loop.", registry=registry, multiprocess_mode="livesum"
        )
        self.batch_fill = Histogram(
            "hybridclf_batch_fill", "Share of a batch that was work.", buckets=_SHARES, registry=registry
        )
        self.batch_seconds = Histogram(
            "hybridclf_batch_seconds", "Time that a batch takes the denoiser.", buckets=_SECONDS, registry=registry
        )
        self.evaluations = Histogram(
            "hybridclf_evaluations_per_image", "Denoiser evaluations.", buckets=_EVALUATIONS, registry=registry
        )
        self.stopped_by = Counter(
            "hybridclf_images", "Images by why their re-ranking ended.", ["stopped_by"], registry=registry
        )
        self.queue_seconds = Histogram(
            "hybridclf_queue_seconds", "Time of an image in the queue.", buckets=_SECONDS, registry=registry
        )
        self.loop_seconds = Histogram(
            "hybridclf_loop_seconds", "Time of an image in the loop.", buckets=_SECONDS, registry=registry
        )

        self.decode_seconds = Histogram(
            "hybridclf_decode_seconds", "Time to decode an image.", buckets=_SECONDS, registry=registry
        )
        self.bytes_held = Gauge(
            "hybridclf_bytes_held",
            "Bytes of bodies and images in the server.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.oldest_seconds = Gauge(
            "hybridclf_oldest_seconds",
            "Age of the oldest batch, decoding or call of tier 1.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.decoders_lost = Gauge(
            "hybridclf_decoders_lost",
            "Decoding processes that an image has cost.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._service: Service | None = None

    def watch(self, service: "Service") -> None:
        """Read the state of this service from now on."""
        self._service = service

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Record a request that has ended."""
        self.requests.labels(endpoint, outcome).inc()
        self.request_seconds.labels(endpoint).observe(seconds)
        self._read_state()

    def _read_state(self) -> None:
        if self._service is None:
            return
        service, stage, gate = self._service, self._service.stage, self._service.gate
        self.bytes_held.set(service.budget.held)
        self.oldest_seconds.set(service.oldest_seconds)
        self.decoders_lost.set(service.decoders.lost)
        # both counters change on other threads, so the difference may be negative for a moment
        self.queue_depth.set(max(0, gate.inside - stage.under_way))
        self.under_way.set(stage.under_way)

    def batch(self, fill: float, seconds: float) -> None:
        """Record an evaluated batch: its fill, in (0, 1], and its time."""
        self.batch_fill.observe(fill)
        self.batch_seconds.observe(seconds)

    def answered(self, result: RerankResult, waited: float, under_way: float) -> None:
        """Record an answer: its result, and its seconds in the queue and in the loop."""
        self.evaluations.observe(result.evaluations)
        self.stopped_by.labels(result.stopped_by).inc()
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
