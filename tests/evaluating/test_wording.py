"""Numbers in words."""

import numpy as np

from hybridclf.evaluating.wording import against, count, percent, percent_in, ratio
from hybridclf.metrics import Interval


def test_words() -> None:
    assert percent(0.8812) == "88.1 %"
    assert percent_in(Interval(0.881, 0.85, 0.907)) == "88.1 [85.0, 90.7]"
    assert percent_in(Interval(0.009, -0.001, 0.019), "+") == "+0.9 [-0.1, +1.9]"
    assert (count(12.34), count(1234.5)) == ("12.3", "1,234") and (ratio(9.4), ratio(1234.5)) == ("9.4", "1,234")


def test_comparison() -> None:
    base = np.arange(200) < 100
    more, less, alike = np.arange(200) < 150, np.arange(200) < 50, np.roll(base, 1)
    said = against("b", {"b": base, "more": more, "less": less, "alike": alike})
    better, worse, same = said.split("; ")
    assert better.startswith("more better than b, +25.0 points (18.")
    assert worse.startswith("less worse than b, -25.0 points (-30.")
    assert same == "not told from b: alike"
    assert against("b", {"b": base, "alike": alike}).startswith("alike not told from b, +0.0 points (-")
    films = np.arange(200) // 50
    assert against("b", {"b": base, "more": more}, films).startswith("more not told from b")
