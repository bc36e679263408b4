"""Draws the hybrid against tier 1, row by row: `python docs/pictures/worth_minutes.py`, from the repository's root.

The rows are those of `benchmarks/results/worth-minutes.json`: of several runs of `benchmarks/worth.py`, and of pairs of
`hybridclf train` behind EfficientNet-Lite0, asked as it does.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hybridclf.demo.style import colour_of, new_figure, styled

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def rows() -> list[tuple[str, dict[str, Any]]]:
    """The rows of all runs, and the name of each with that of its run."""
    runs = json.loads((RESULTS / "worth-minutes.json").read_text(encoding="utf-8"))
    return [(f"{name}   ({run})", row) for run, found in runs.items() for name, row in found["rows"].items()]


@styled
def picture(named: list[tuple[str, dict[str, Any]]]) -> Figure:
    """Points of accuracy that the hybrid is above tier 1 by, with 95 % intervals; dark where zero is outside."""
    figure = new_figure(9, 1.2 + 0.24 * len(named))
    axes = figure.subplots()
    gains = [100 * np.array(row["hybrid minus"]["tier 1"]) for _, row in named]
    for y, (value, low, high) in enumerate(gains):
        colour, sure = colour_of("hybrid"), low > 0 or high < 0
        axes.plot([low, high], [y, y], color=colour, lw=1.2, alpha=1 if sure else 0.4)
        axes.plot(value, y, "o", color=colour, markersize=4, alpha=1 if sure else 0.4)
    axes.axvline(0, lw=0.8, color=colour_of("tier 1"))
    axes.set(yticks=range(len(named)), xlabel="hybrid minus tier 1, points of accuracy (95 % interval)")
    axes.set_yticklabels([name for name, _ in named], fontsize=7)
    axes.invert_yaxis()
    above, below = (sum(bool(v) for v in signs) for signs in zip(*((g[1] > 0, g[2] < 0) for g in gains), strict=True))
    axes.set_title(
        f"Above tier 1 in {above} of {len(gains)} rows, below in {below}, each by its own interval", fontsize=10
    )
    return figure


if __name__ == "__main__":
    picture(rows()).savefig(RESULTS / "worth-minutes.png")
