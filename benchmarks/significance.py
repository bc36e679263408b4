"""Tests of many comparisons: the exact McNemar test of one, and Holm's correction over all."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

__all__ = ["better_than", "holm", "significant"]

LEVEL = 0.05
"""Level of the tests of all hypotheses together."""


def better_than(right: np.ndarray, before: np.ndarray) -> float:
    """One-sided p-value of McNemar's exact test that one method is right more often than another.

    Parameters
    ----------
    right, before : bool array `[n]`
        True where the method, and the other, is right for the same images.
    """
    gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
    return float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(np.array(p)[order] * (len(p) - np.arange(len(p))))
    return np.minimum(adjusted, 1.0)[np.argsort(order)].tolist()


def significant(p: Mapping[str, float]) -> list[str]:
    """Names of the hypotheses that Holm's method rejects, the surest first."""
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return [name for name in sorted(p, key=lambda name: p[name]) if adjusted[name] <= LEVEL]
