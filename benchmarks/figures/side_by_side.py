"""Figure 1: the published loop over ours, on the same weights, trials and stages (Algorithm 2 of arXiv 2303.16203)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from reference_loops import ReferenceLoops
from timing import ratio_range, timings

from hybridclf import Reranker, Staged
from hybridclf.devices import can_compile

from .common import Line, bars, styled
from .workloads import COMPILED, SD_2_COMPILED, SMALL_COMPILED, WORKLOADS, Workload

GOALS = {(name, "cpu"): 1.5 for name in ("small SD", SMALL_COMPILED)}
GOALS |= {(name, "cuda"): 3.0 for name in ("small SD", "SD 2 size", *COMPILED)}
"""Smallest ratio aimed at, by workload and device."""


@dataclass(frozen=True)
class Sizes:
    """Images by device and workload; keep and trials of the stages; repeats of either side."""

    images: Mapping[str, Mapping[str, int]]
    keep: tuple[int, ...]
    trials: tuple[int, ...]
    repeats: int


EASY = dict.fromkeys(("digits MLP", "late U-Net"), 64)
SIZES = {
    "small": Sizes(
        {
            "cpu": {"digits MLP": 64, "late U-Net": 4, "small SD": 4, SMALL_COMPILED: 4},
            "cuda": EASY | {"small SD": 16, SMALL_COMPILED: 16, "SD 2 size": 2, SD_2_COMPILED: 2},
        },
        (5, 1),
        (16, 64),
        3,
    ),
    "full": Sizes(
        {"cpu": EASY | {"small SD": 64, SMALL_COMPILED: 64}, "cuda": dict.fromkeys(WORKLOADS, 64)}, (5, 1), (16, 64), 3
    ),
}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Both sides in turn, for each workload that the device can take."""
    images = sizes.images.get(device.type, sizes.images["cpu"])
    names = [name for name in images if name not in COMPILED or can_compile(device)]
    return {
        "device": device.type,
        "keep": sizes.keep,
        "trials": sizes.trials,
        "repeats": sizes.repeats,
        "workloads": {name: compare(WORKLOADS[name](images[name], device), sizes) for name in names},
    }


def compare(work: Workload, sizes: Sizes) -> dict[str, Any]:
    """Seconds per image of both sides and their ratio; and whether both did and answered the same."""
    reranker = Reranker(work.ours or work.denoiser, allocation=Staged(sizes.keep, sizes.trials))
    loops = ReferenceLoops(work.denoiser, work.labels, reranker.plan)
    theirs: list[Any] = []
    ours: list[Any] = []

    def reference() -> None:
        theirs[:] = [loops.staged(image, sizes.keep, sizes.trials) for image in work.images]

    def hybrid() -> None:
        ours[:] = reranker.rerank(work.images, work.candidates)

    seconds = timings(reference, hybrid, repeats=sizes.repeats) / len(work.images)
    ratio, span = ratio_range(*seconds.T)
    reference_seconds, our_seconds = np.median(seconds, axis=0).tolist()
    return {
        "images": len(work.images),
        "evaluations": float(np.mean([a.evaluations for a in theirs])),
        "our_evaluations": float(np.mean([r.evaluations for r in ours])),
        "same_answers": float(np.mean([a.label == r.ranking[0] for a, r in zip(theirs, ours, strict=True)])),
        "reference_seconds": reference_seconds,
        "our_seconds": our_seconds,
        "ratio": ratio,
        "range": span,
    }


def lines(report: dict[str, Any]) -> list[Line]:
    """A line per workload."""
    device = report["device"]
    return [
        Line(f"published loop over ours, {name}", work["ratio"], at_least=GOALS.get((name, device)), span=work["range"])
        for name, work in report["workloads"].items()
    ]


@styled
def draw(report: dict[str, Any]) -> Figure:
    """A bar per workload."""
    figure = Figure(figsize=(9, 3.4))
    axes, works = figure.add_subplot(), report["workloads"]
    values = {f"{name}  (n = {work['images']})": work["ratio"] for name, work in works.items()}
    bars(axes, values, spans=[work.get("range") for work in works.values()])
    axes.axvline(1, color="black", linewidth=0.8, zorder=0)
    axes.set_xlabel("times as fast as the published loop (same weights and stages; median, range)")
    best, worst = (pick(works, key=lambda name: works[name]["ratio"]) for pick in (max, min))
    said = " to ".join(f"{works[name]['ratio']:.2g} times as fast ({name})" for name in (worst, best))
    figure.suptitle(f"Our loop is {said}", x=0.01, ha="left")
    return figure
