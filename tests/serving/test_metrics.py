"""What Prometheus reads of images that were answered."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

values = pytest.importorskip("prometheus_client.values")
ServerMetrics = pytest.importorskip("hybridclf.serving.prometheus").ServerMetrics
Answer = pytest.importorskip("hybridclf.serving.questions").Answer


class State(SimpleNamespace):
    """The state of a service that its metrics read."""

    __hash__ = object.__hash__


def service(under_way: int, lost: int, oldest: float) -> Any:
    stage, gate = SimpleNamespace(under_way=under_way), SimpleNamespace(inside=under_way + 1)
    budget, decoders = SimpleNamespace(held=100), SimpleNamespace(lost=lost)
    return State(stage=stage, gate=gate, budget=budget, decoders=decoders, oldest_seconds=oldest)


def test_images_are_counted_by_why_they_ended() -> None:
    metrics = ServerMetrics()
    for reason in ("novel", "confident", "novel"):
        metrics.image(Answer(np.array([0.6, 0.4]), 2, reason))
    text = metrics.text().decode()
    assert 'hybridclf_images_total{stopped_by="novel"} 2.0' in text
    assert 'hybridclf_images_total{stopped_by="confident"} 1.0' in text
    assert "hybridclf_evaluations_per_image_sum 6.0" in text


def test_a_model_that_still_answers_counts_beside_the_one_that_replaced_it() -> None:
    metrics, services = ServerMetrics(), [service(under_way=1, lost=2, oldest=70.0)]
    metrics.watch(services)
    assert "hybridclf_decoders_lost_total 2.0" in metrics.text().decode()
    services.append(service(under_way=3, lost=1, oldest=0.5))
    text = metrics.text().decode()
    for line in ("bytes_held 200.0", "oldest_seconds 70.0", "images_under_way 4.0", "queue_depth 2.0"):
        assert f"hybridclf_{line}" in text
    del services[0]
    text = metrics.text().decode()
    assert "hybridclf_oldest_seconds 0.5" in text and "hybridclf_decoders_lost_total 3.0" in text


def test_refusals_do_not_flatter_the_time_of_answers() -> None:
    metrics = ServerMetrics()
    metrics.requested("rerank", "unauthorized", 0.0001)
    metrics.requested("rerank", "ok", 1.0)
    assert 'hybridclf_request_seconds_sum{endpoint="rerank",outcome="ok"} 1.0' in metrics.text().decode()


def test_processes_that_share_a_folder_tell_of_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three of them: each has its own number, by which prometheus_client names its files."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    busy = service(under_way=2, lost=1, oldest=0.5)

    def process(number: int) -> Any:
        monkeypatch.setattr(os, "getpid", lambda: number)
        monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: number))
        metrics = ServerMetrics()
        metrics.watch([busy])
        metrics.requested("rerank", "ok", 0.01)
        return metrics

    request, held = 'hybridclf_requests_total{endpoint="rerank",outcome="ok"} %.1f', "hybridclf_bytes_held %.1f"
    first = process(1).text().decode()
    assert request % 1 in first and held % 100 in first
    second = process(2)
    both = second.text().decode()
    assert request % 2 in both and held % 200 in both and "hybridclf_oldest_seconds 0.5" in both
    second.close()
    after = process(3).text().decode()
    assert request % 3 in after and held % 200 in after  # the second's counts stay, its gauges go with it
