"""What Prometheus reads of images that were answered."""

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
