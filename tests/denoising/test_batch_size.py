"""The size of batches."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf import Reranker
from hybridclf.denoising.batch_size import default_batch_size
from hybridclf.errors import InvalidInputError


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "auto"])
def test_what_is_no_batch_size(size: Any, gaussian_denoiser: Callable[..., Any], means: dict[str, np.ndarray]) -> None:
    with pytest.raises(InvalidInputError, match="batch_size must be a whole number of at least 1 or None"):
        Reranker(gaussian_denoiser(means), batch_size=size)


@pytest.mark.parametrize(
    ("device", "dtype", "cost_unit", "shape", "size"),
    [
        ("cpu", torch.float64, "row", (64,), 256),
        ("cpu", torch.float32, "row", (1, 8, 8), 128),
        ("cpu", torch.float32, "row", (3, 32, 32), 32),
        ("cpu", torch.float32, "evaluation", (4, 8, 8), 32),
        ("cuda", torch.float64, "row", (64,), 1024),
        ("cuda", torch.float32, "row", (3, 32, 32), 512),
        ("cuda", torch.float32, "row", (3, 64, 64), 170),
        ("cuda", torch.float32, "row", (3, 224, 224), 32),
        ("cuda", torch.float16, "evaluation", (4, 8, 8), 1024),
        ("cuda", torch.float16, "evaluation", (4, 32, 32), 128),
        ("cuda", torch.float16, "evaluation", (4, 64, 64), 32),
    ],
)
def test_a_single_image_does_not_wait_for_a_long_batch(
    device: str, dtype: torch.dtype, cost_unit: str, shape: tuple[int, ...], size: int
) -> None:
    denoiser: Any = SimpleNamespace(device=torch.device(device), dtype=dtype, cost_unit=cost_unit, shape=shape)
    assert default_batch_size(denoiser) == size
