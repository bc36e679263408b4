"""Numbers of reports and figures, as plain JSON and in words."""

from collections.abc import Mapping

import numpy as np

from ..metrics import Interval, accuracy_difference

__all__ = ["against", "as_list", "count", "percent", "percent_in", "ratio"]


def as_list(interval: Interval) -> list[float]:
    """Value, low and high end."""
    return [interval.value, interval.low, interval.high]


def percent(share: float) -> str:
    """A share in [0, 1] as "88.1 %"."""
    return f"{100 * share:.1f} %"


def percent_in(interval: Interval, sign: str = "") -> str:
    """A share with its interval as "88.1 [85.0, 90.7]", in percent; a difference of two takes the sign "+"."""
    value, low, high = (100 * v for v in as_list(interval))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def count(value: float) -> str:
    """A mean number of things as "12.3", or "1,234" from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(value: float) -> str:
    """A ratio as "1.2", or "12" where that is as telling."""
    return f"{value:,.0f}" if value >= 9.5 else f"{value:.1f}"


def against(baseline: str, right: Mapping[str, np.ndarray], groups: np.ndarray | None = None) -> str:
    """Sentence parts that compare every method's right answers, bool `[n]` by name, with those of the baseline.

    The intervals allow for images of one group `[n]`.
    """
    others = {name: own for name, own in right.items() if name != baseline}
    gains = {name: accuracy_difference(own, right[baseline], groups=groups) for name, own in others.items()}
    parts, alike = [], []
    for name, gain in gains.items():
        word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not told from"
        if word == "not told from" and len(gains) > 2:  # a list of zeros would tell nothing
            alike.append(name)
        else:
            parts.append(f"{name} {word} {baseline}, {gain.points()}")
    return "; ".join([*parts, f"not told from {baseline}: {', '.join(alike)}"] if alike else parts)
