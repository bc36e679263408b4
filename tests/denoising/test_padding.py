"""Padding of a batch's rows and evaluations."""

import numpy as np
import pytest

from hybridclf.denoising.evaluator import _padded


@pytest.mark.parametrize(
    ("n", "size", "finely", "length"),
    [
        (1, 32, False, 1),
        (5, 32, False, 8),
        (17, 32, False, 32),
        (17, 24, False, 24),
        (40, 32, False, 40),  # a single row's evaluations may be more than a batch holds
        (5, 32, True, 5),
        (9, 32, True, 10),
        (17, 32, True, 20),
        (17, 18, True, 18),
        (33, 64, True, 40),
        (65, 512, True, 80),
    ],
)
def test_the_last_index_fills_it_up(n: int, size: int, finely: bool, length: int) -> None:
    padded = _padded(np.arange(n), size, finely)
    np.testing.assert_array_equal(padded, [*range(n), *[n - 1] * (length - n)])
