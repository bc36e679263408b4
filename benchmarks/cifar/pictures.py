"""Picture of the CIFAR-10 benchmark under shift."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from figures.common import colour_of, styled
from matplotlib.figure import Figure

from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES
from hybridclf.metrics import accuracy

Rows = Sequence[dict[str, Any]]


@styled
def shift(rows: Rows) -> Figure:
    """Accuracy and calibration error against severity, means over the corruptions of a family, with their intervals.

    Rows are `ShiftRow`s as plain values; the first distribution is that of clean images.
    """
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, len(FAMILIES), sharex=True, sharey="row")
    clean, methods = rows[0]["source"], list(dict.fromkeys(row["method"] for row in rows))
    for column, (family, names) in enumerate(FAMILIES.items()):
        for method in methods:
            sources = [[clean], *([f"{name} {severity}" for name in names] for severity in SEVERITIES)]
            own = [[r for r in rows if r["method"] == method and r["source"] in some] for some in sources]
            _lines(panels[:, column], own, method)
        panels[0, column].set_title(f"{family}: {', '.join(names)}", fontsize=9)
        panels[1, column].set_xlabel("severity (0: clean)")
    panels[0, 0].set_ylabel("accuracy, % (95 % interval)")
    panels[1, 0].set_ylabel("calibration error (ECE)")
    panels[0, -1].legend(fontsize=8)
    figure.suptitle(f"{_fall(rows, clean)} ({rows[0]['n']} images under each corruption)", x=0.01, ha="left")
    return figure


def _lines(panels: Sequence[Any], rows: Sequence[Rows], method: str) -> None:
    """A method's accuracy and calibration error by severity; the same images are in all corruptions of a family."""
    colour, severity = colour_of(method), (0, *SEVERITIES)
    shares = [np.mean([row["accuracy"]["value"] for row in some]) for some in rows]
    n = rows[0][0]["n"]
    ends = [accuracy(np.arange(n) < round(share * n)) for share in shares]
    panels[0].fill_between(
        severity, *(100 * np.array([(e.low, e.high) for e in ends]).T), color=colour, alpha=0.12, lw=0
    )
    panels[0].plot(severity, 100 * np.array(shares), "o-", color=colour, markersize=4, label=method)
    errors = [np.mean([row["calibration_error"] for row in some]) for some in rows]
    panels[1].plot(severity, errors, "o-", color=colour, markersize=4, label=method)


def _fall(rows: Rows, clean: str) -> str:
    """Means over all corruptions and severities, in a sentence."""
    mean = {
        part: 100
        * np.mean([r["accuracy"]["value"] for r in rows if r["method"].startswith(part) and r["source"] != clean])
        for part in ("tier 1", "hybrid")
    }
    return f"Under corruptions tier 1 is right for {mean['tier 1']:.1f} % and the hybrid for {mean['hybrid']:.1f} %"
