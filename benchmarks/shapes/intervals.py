"""Intervals: of means over several tasks, and in print."""

import numpy as np
from scipy.stats import bootstrap


def mean_interval(values: np.ndarray) -> dict[str, float]:
    """Mean of independent values `[n]`, and its 95 % bootstrap (percentile) interval; of no width if all are equal."""
    low, high = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def in_percent(interval: dict[str, float]) -> str:
    """Such as "81.5 (78.0, 84.6)"."""
    return "{:.1f} ({:.1f}, {:.1f})".format(*(100 * interval[k] for k in ("value", "low", "high")))
