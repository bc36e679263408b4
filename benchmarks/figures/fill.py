"""Figure 5: how much of the denoiser's work is work, and how much fills batches up to their fixed shape."""

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hybridclf import Allocation, FixedTrials, Fusion, HybridClassifier, PairedTTest, Race, Staged
from hybridclf.denoising import lookahead
from hybridclf.models import LateConditionedDenoiser
from hybridclf.ports import Condition

from .common import COLOURS, Line, styled
from .workloads import digits_images

UNITS = {"row": "rows of a late-conditioned denoiser", "pair": "pairs of one forward each"}


@dataclass(frozen=True)
class Sizes:
    """Images together, images one by one, and the allocations."""

    images: int
    alone: int
    allocations: tuple[Allocation, ...]


ALLOCATIONS = (FixedTrials(16), Staged((5, 1), (8, 32)), PairedTTest(0.002, 5, 64), Race())
SIZES = dict.fromkeys(("small", "full"), Sizes(450, 10, ALLOCATIONS))


class Counting:
    """A float32 denoiser that counts what it computes; by pairs it runs its whole network for each of them."""

    def __init__(self, denoiser: LateConditionedDenoiser, cost_unit: str) -> None:
        self.denoiser, self.cost_unit = denoiser, cost_unit
        self.batches = self.rows = self.pairs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """The denoiser's answer."""
        if self.cost_unit == "pair":
            x_t, t, row = x_t[row], t[row], torch.arange(len(row), device=row.device)
        self.batches += 1
        self.rows += len(x_t)
        self.pairs += len(row) + -len(row) % self.denoiser.head_pairs if self.cost_unit == "row" else len(row)
        return self.denoiser.predict(x_t, t, row, condition)


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Every allocation on the digits pair in float32, counted in rows and in pairs."""
    clf = HybridClassifier.from_pretrained("digits")
    ours = clf.denoiser_
    denoiser = LateConditionedDenoiser(ours.network, ours.classes, ours.mean, ours.scale, device=device)
    images = digits_images(sizes.images)
    asked = [(unit, a) for unit in UNITS for a in sizes.allocations]
    return {
        "images": sizes.images,
        "alone": sizes.alone,
        "allocations": [
            {"allocation": repr(a), "unit": unit}
            | fill(clf, Counting(denoiser, unit), images, a)
            | one_by_one(clf, Counting(denoiser, unit), images[: sizes.alone], a)
            for unit, a in asked
        ],
    }


def one_by_one(
    clf: HybridClassifier, denoiser: Counting, images: np.ndarray, allocation: Allocation
) -> dict[str, float]:
    """Mean number of batches of an image that comes alone, and what it would be if they were padded with nothing."""
    batches = []
    for depth in (lookahead.DEPTH, 0):
        denoiser.batches = 0
        with patch.object(lookahead, "DEPTH", depth):
            for i in range(len(images)):
                fill(clf, denoiser, images[i : i + 1], allocation)
        batches.append(denoiser.batches / len(images))
    return dict(zip(("alone_batches", "alone_padded"), batches, strict=True))


def fill(clf: HybridClassifier, denoiser: Counting, images: np.ndarray, allocation: Allocation) -> dict[str, Any]:
    """Batches of an allocation (with the prior only in a race), and the computed rows and pairs that were asked for."""
    clf.denoiser_ = denoiser
    if isinstance(allocation, Race):
        stream = clf.reranker(allocation).stream(images, *clf.propose(images))
    else:
        stream = clf.reranker(allocation, Fusion()).stream(images, [clf.classes_.tolist()] * len(images))
    rows, pairs = np.sum([(step.rows, step.pairs) for step in stream], axis=0)
    return {
        "batches": denoiser.batches,
        "rows": float((rows if denoiser.cost_unit == "row" else pairs) / max(denoiser.rows, 1)),
        "pairs": float(pairs / max(denoiser.pairs, 1)),
    }


def lines(report: dict[str, Any]) -> list[Line]:
    """The share of what the denoiser's cost is counted in, and of pairs; batches of images that come alone."""
    return [line for entry in report["allocations"] for line in (*_lines(entry), _alone(entry))]


def _alone(entry: dict[str, Any]) -> Line:
    name = f"{UNITS[entry['unit']]}, {entry['allocation'].split('(')[0]}"
    ratio = entry["alone_padded"] / max(entry["alone_batches"], 1e-9)
    return Line(f"batches of an image alone, padded over filled up, {name}", ratio)


def _lines(entry: dict[str, Any]) -> list[Line]:
    name = entry["allocation"].split("(")[0]
    if entry["unit"] == "pair":
        return [Line(f"pairs that carried work, one forward each, {name}", 100 * entry["pairs"], "%")]
    return [
        Line(f"rows that carried work, late-conditioned, {name}", 100 * entry["rows"], "%"),
        Line(f"pairs that carried work, late-conditioned, {name}", 100 * entry["pairs"], "%"),
    ]


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Bars by allocation: what the cost is counted in, for either kind of denoiser."""
    figure = Figure(figsize=(8, 3.2))
    axes = figure.add_subplot()
    for i, (unit, label) in enumerate(UNITS.items()):
        entries = [e for e in report["allocations"] if e["unit"] == unit]
        at = np.arange(len(entries)) + (i - 0.5) * 0.35
        axes.barh(at, [100 * e[f"{unit}s"] for e in entries], 0.33, color=COLOURS[i], label=label)
        axes.set_yticks(np.arange(len(entries)), [e["allocation"] for e in entries], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"share that carried work, % ({report['images']} digits)", xlim=(0, 100))
    least = min(report["allocations"], key=lambda entry: entry[f"{entry['unit']}s"])
    share, kind = 100 * least[f"{least['unit']}s"], least["allocation"].partition("(")[0]
    figure.suptitle(
        f"At least {share:.0f} % of what is computed is work ({kind}, {UNITS[least['unit']]})", x=0.01, ha="left"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure
