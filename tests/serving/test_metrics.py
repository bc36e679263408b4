"""What Prometheus reads of images that were answered."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridclf import RerankResult

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


def test_processes_that_share_a_folder_tell_of_each_other(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from types import SimpleNamespace
        from hybridclf.serving.prometheus import ServerMetrics
        metrics = ServerMetrics()
        stage, gate = SimpleNamespace(under_way=2), SimpleNamespace(inside=3)
        state = SimpleNamespace(held=100), SimpleNamespace(lost=1), stage, gate
        metrics.watch(SimpleNamespace(**dict(zip(("budget", "decoders", "stage", "gate"), state)), oldest_seconds=0.5))
        metrics.requested("rerank", "ok", 0.01)
        print(metrics.text().decode(), flush=True)
        sys.stdin.read()
        metrics.close()
    """
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def running() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def lines(process: subprocess.Popen[str]) -> list[str]:
        """What the process says of all, from its start until it waits."""
        assert process.stdout is not None
        return list(iter(process.stdout.readline, "\n"))

    with running() as first:
        alone = lines(first)
        with running() as second:
            both = lines(second)
            second.communicate()
        with running() as third:
            after = lines(third)
            third.communicate()
        first.communicate()
    request, held = 'hybridclf_requests_total{endpoint="rerank",outcome="ok"} %.1f\n', "hybridclf_bytes_held %.1f\n"
    assert request % 1 in alone and held % 100 in alone
    assert request % 2 in both and held % 200 in both
    assert request % 3 in after and held % 200 in after  # the second's counts stay, its gauges go with it
