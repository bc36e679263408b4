"""Figure 3: how much of the time is the denoiser's and how much the loop's around it, on the same batches."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from timing import flops, medians, ratio_range, recorded, timings

from hybridclf import Denoiser, FixedTrials, Fusion, Reranker
from hybridclf.denoising.evaluator import batch_capacity
from hybridclf.reranking.batches import Capacity, ReplayEvaluator
from hybridclf.reranking.loop import Loop
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window

from .common import COLOURS, Line, styled
from .workloads import WORKLOADS, Workload

GOALS = {"late U-Net": 1.05, "small SD": 1.05, "SD 2 size": 1.05}
"""Largest share aimed at, of the loop's whole time over the bare denoiser's."""


@dataclass(frozen=True)
class Sizes:
    """Images by device and workload, trials for every class, repeats; edge of the matrices that tell the peak."""

    images: Mapping[str, Mapping[str, int]]
    trials: int
    repeats: int
    matrix: Mapping[str, int]


MATRIX = {"cpu": 2048, "cuda": 8192}
SIZES = {
    "small": Sizes(
        {
            "cpu": {"digits MLP": 256, "late U-Net": 8, "small SD": 2},
            "cuda": {"digits MLP": 1024, "late U-Net": 2048, "small SD": 64, "SD 2 size": 1},
        },
        16,
        11,
        MATRIX,
    ),
    "full": Sizes(
        {
            "cpu": {"digits MLP": 1024, "late U-Net": 128, "small SD": 16},
            "cuda": {"digits MLP": 4096, "late U-Net": 4096, "small SD": 256, "SD 2 size": 64},
        },
        16,
        7,
        MATRIX,
    ),
}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Each workload of the device's."""
    images = sizes.images.get(device.type, sizes.images["cpu"])
    return {
        "device": device.type,
        "trials": sizes.trials,
        "repeats": sizes.repeats,
        "workloads": {name: share(WORKLOADS[name](n, device), sizes) for name, n in images.items()},
    }


def share(work: Workload, sizes: Sizes) -> dict[str, Any]:
    """Seconds of re-ranking, of the same batches without it and of its bookkeeping alone, in turn; and what follows."""
    allocation = FixedTrials(sizes.trials)
    results, recorder = recorded(work.denoiser, allocation, work.images, work.candidates)
    reranker = Reranker(work.denoiser, allocation=allocation)
    capacity = batch_capacity(work.denoiser, reranker.batch_size)
    table = np.stack([r.evidence for r in results])
    seconds = timings(
        lambda: reranker.rerank(work.images, work.candidates),
        recorder.replay,
        lambda: bookkeeping(allocation, capacity, table, ahead=int(work.denoiser.device.type == "cuda")),
        repeats=sizes.repeats,
    )
    (whole, bare, books), (ratio, span) = np.median(seconds, axis=0).tolist(), ratio_range(*seconds[:, :2].T)
    recorder.denoiser = copy(work.denoiser)
    recorder.denoiser.graphs = False  # kernel by kernel, so that all of them are counted
    speed, peak = flops(recorder.replay) / bare, matmul_speed(work.denoiser, sizes)
    return {
        "seconds": whole,
        "denoiser_seconds": bare,
        "bookkeeping_seconds": books,
        "share": ratio,
        "range": span,
        "denoiser": 1 / ratio,
        "bookkeeping": books / whole,
        "utilisation": speed / ratio / peak,
        "denoiser_utilisation": speed / peak,
    }


def bookkeeping(allocation: FixedTrials, capacity: Capacity, table: np.ndarray, ahead: int) -> None:
    """The loop over errors `[n, T, K]` recorded before, in batches of that capacity, begun so far ahead."""
    n, _, n_classes = table.shape
    tasks = [Task(i, tuple(range(n_classes)), np.zeros(n_classes)) for i in range(n)]
    window = Window.for_batches(capacity, allocation.max_trials, n_classes, ahead)
    for _ in Loop(allocation, Fusion(), ReplayEvaluator(table), capacity, window, ahead).run(tasks):
        pass


def matmul_speed(denoiser: Denoiser, sizes: Sizes) -> float:
    """FLOPs per second of a large matrix product in the denoiser's type, on its device: what can be reached at all.

    A GPU's convolutions take TF32 for float32, so the product does too.
    """
    edge = sizes.matrix.get(denoiser.device.type, sizes.matrix["cpu"])
    a = torch.ones(edge, edge, dtype=denoiser.dtype, device=denoiser.device)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if a.is_cuda else precision)
    (seconds,) = medians(lambda: a @ a, repeats=sizes.repeats)
    torch.set_float32_matmul_precision(precision)
    return 2 * edge**3 / float(seconds)


def lines(report: dict[str, Any]) -> list[Line]:
    """Loop over bare denoiser, and how much of the device's speed is used with and without it."""
    return [line for name, work in report["workloads"].items() for line in _lines(name, work)]


def _lines(name: str, work: dict[str, Any]) -> list[Line]:
    return [
        Line(f"loop over bare denoiser, {name}", work["share"], at_most=GOALS.get(name), span=work["range"]),
        Line(f"FLOPs per second over a matrix product's, {name}", 100 * work["utilisation"], "%"),
        Line(f"the same of the bare denoiser, {name}", 100 * work["denoiser_utilisation"], "%"),
    ]


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Parts of the time, a bar per workload; a loop that noise makes faster than its denoiser adds nothing."""
    figure = Figure(figsize=(8, 3.2))
    axes, works = figure.add_subplot(), report["workloads"]
    denoiser = np.array([min(100 * work["denoiser"], 100.0) for work in works.values()])
    axes.barh(list(works), denoiser, color=COLOURS[0], label="denoiser alone", height=0.6)
    axes.barh(list(works), 100 - denoiser, left=denoiser, color=COLOURS[1], label="what the loop adds", height=0.6)
    books = [100 * work["bookkeeping"] for work in works.values()]  # beside a GPU's work, where there is one
    axes.plot(books, list(works), "|", color="black", markersize=20, label="its bookkeeping alone")
    axes.invert_yaxis()
    axes.set_xlabel(f"time of a call, %; medians of {report['repeats']} turns")
    adds = {name: max(100 * (work["share"] - 1), 0.0) for name, work in works.items()}
    said = ", ".join(f"{name} {percent:.0f} %" for name, percent in adds.items())
    figure.suptitle(f"The loop adds to its denoiser's time: {said}", x=0.01, ha="left", fontsize=9.5)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    return figure
