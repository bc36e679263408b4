"""Numbers of figures, as plain JSON and in words."""

from collections.abc import Mapping

import numpy as np

from ...metrics import Interval, accuracy_difference

__all__ = ["against", "as_list", "percent", "points"]


def as_list(interval: Interval) -> list[float]:
    """Value, low and high end."""
    return [interval.value, interval.low, interval.high]


def percent(share: float) -> str:
    """A share in [0, 1] as "88.1 %"."""
    return f"{100 * share:.1f} %"


def points(difference: Interval) -> str:
    """A difference of two shares as "+0.9 points (-0.1 to 1.9)"."""
    value, low, high = (100 * v for v in as_list(difference))
    return f"{value:+.1f} points ({low:.1f} to {high:.1f})"


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
            parts.append(f"{name} {word} {baseline}, {points(gain)}")
    return "; ".join([*parts, f"not told from {baseline}: {', '.join(alike)}"] if alike else parts)
