"""What Prometheus reads of images that were answered."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hybridclf import RerankResult

values = pytest.importorskip("prometheus_client.values")
ServerMetrics = pytest.importorskip("hybridclf.serving.prometheus").ServerMetrics


def test_images_are_counted_by_why_they_ended() -> None:
    metrics = ServerMetrics()
    for reason in ("novel", "confident", "novel"):
        result = RerankResult(("a", "b"), np.array([0.6, 0.4]), ("a", "b"), 2, 1, reason, np.zeros((1, 2)))
        metrics.answered(result, 0.01, 0.02)
    text = metrics.text().decode()
    assert 'hybridclf_images_total{stopped_by="novel"} 2.0' in text
    assert 'hybridclf_images_total{stopped_by="confident"} 1.0' in text
    assert "hybridclf_evaluations_per_image_sum 6.0" in text


def test_processes_that_share_a_folder_tell_of_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three of them: each has its own number, by which prometheus_client names its files."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    state = {"stage": SimpleNamespace(under_way=2), "gate": SimpleNamespace(inside=3)}
    state |= {"budget": SimpleNamespace(held=100), "decoders": SimpleNamespace(lost=1)}

    def process(number: int) -> Any:
        monkeypatch.setattr(os, "getpid", lambda: number)
        monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: number))
        metrics = ServerMetrics()
        metrics.watch(SimpleNamespace(**state, oldest_seconds=0.5))
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
