"""Figure 4: time and peak memory against classes, images and trials, with tier 1's candidates and with every class.

A late-conditioned MLP with random weights and a naive Bayes classifier of Gaussian blobs. Tier 1's candidates get every
trial; of all classes, the best ten of two trials do: cost does not depend on luck. Memory is measured in a process of
its own per point: `python -m figures.growth POINT DEVICE` prints it, POINT being the JSON of a `Point`.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from timing import medians

from hybridclf import FixedTrials, HybridClassifier, Staged
from hybridclf.reranking.loop import Step
from hybridclf.reranking.window import WINDOW_BYTES

from .common import COLOURS, Line, styled
from .workloads import late_mlp

TOP_K = 10
SIZE = 64
"""Numbers in one image."""

MIB = 2**20
AXES = ("classes", "images", "trials")
TIER_1 = {True: f"tier 1's top {TOP_K}", False: "every class"}
SIFT = 2
"""Trials after which `TOP_K` of all classes stay."""


@dataclass(frozen=True)
class Point:
    """A question: so many images, among so many classes, in so many trials.

    With `keeps` all results are kept, as `rerank` does; without, each is let go as it comes.
    """

    classes: int
    images: int
    trials: int
    tier_1: bool = True
    keeps: bool = False


@dataclass(frozen=True)
class Sizes:
    """Values that stay while one axis grows, the values along each axis, repeats of the timings.

    `beyond` are two points of which each has more images than the window can hold at a time.
    """

    base: Point
    classes: tuple[int, ...]
    images: tuple[int, ...]
    trials: tuple[int, ...]
    repeats: int
    beyond: tuple[Point, Point]


BEYOND = (Point(1000, 150, 512, False), Point(1000, 300, 512, False))
SIZES = {
    "small": Sizes(Point(100, 64, 32), (10, 100, 1000), (64, 512), (8, 256), 2, BEYOND),
    "full": Sizes(Point(100, 64, 32), (10, 32, 100, 320, 1000), (64, 256, 1024, 4096), (8, 32, 128, 512), 3, BEYOND),
}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """For each axis times and memory with tier 1 and without; then memory beyond the window, and with results kept."""
    most = replace(sizes.base, images=sizes.images[-1], tier_1=False)
    along = [p for axis in AXES for tier_1 in TIER_1 for p in _points(axis, tier_1, sizes)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # memory does not depend on what else runs, as times do
        points = {*along, *sizes.beyond, most, replace(most, keeps=True)}
        list(pool.map(in_process, points, repeat(device)))
    return {
        "base": asdict(sizes.base),
        "repeats": sizes.repeats,
        "window_bytes": WINDOW_BYTES,
        "axes": {
            axis: [times(axis, tier_1, sizes, device) | memory(axis, tier_1, sizes, device) for tier_1 in TIER_1]
            for axis in AXES
        },
        "beyond": [asdict(p) | in_process(p, device) for p in sizes.beyond],
        "kept": [asdict(p) | in_process(p, device) for p in (most, replace(most, keeps=True))],
    }


def times(axis: str, tier_1: bool, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Seconds per image at the points along an axis, all of them in turn."""
    points = _points(axis, tier_1, sizes)
    seconds = medians(*(call(p, device) for p in points), repeats=sizes.repeats)
    per_image = [float(s) / p.images for s, p in zip(seconds, points, strict=True)]
    return {"tier_1": tier_1, "values": getattr(sizes, axis), "seconds_per_image": per_image}


def memory(axis: str, tier_1: bool, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Peak memory at the points along an axis, a process each."""
    return {"memory": [in_process(p, device) for p in _points(axis, tier_1, sizes)]}


def _points(axis: str, tier_1: bool, sizes: Sizes) -> list[Point]:
    return [replace(sizes.base, tier_1=tier_1, **{axis: value}) for value in getattr(sizes, axis)]


def call(point: Point, device: torch.device) -> Callable[[], Any]:
    """The timed call: both tiers' whole work on the point's images."""
    clf, blobs = classifier(point.classes, point.trials, device)
    images = blobs[np.arange(point.images) % len(blobs)]
    return lambda: _drain(steps(clf, images, point), point.keeps)


def steps(clf: HybridClassifier, images: np.ndarray, point: Point) -> Iterable[Step]:
    """The steps of re-ranking tier 1's candidates or every class."""
    if point.tier_1:
        return clf.stream(images)
    sifted = Staged((TOP_K, 1), (min(SIFT, point.trials - 1), point.trials))
    return clf.reranker(sifted).stream(images, [clf.classes_.tolist()] * len(images))


def _drain(stream: Iterable[Step], keeps: bool) -> list[Any]:
    """The results, or nothing if they are let go."""
    kept: list[Any] = []
    for step in stream:
        if keeps:
            kept += step.finished
    return kept


@cache
def classifier(n_classes: int, n_trials: int, device: torch.device) -> tuple[HybridClassifier, np.ndarray]:
    """Both tiers for that many Gaussian blobs, and two images `[2 C, SIZE]` of each."""
    centres = np.random.default_rng(0).standard_normal((n_classes, SIZE))
    y = np.arange(n_classes).repeat(2)
    images = centres[y] + np.random.default_rng(1).standard_normal((len(y), SIZE))
    proposer = FrozenEstimator(GaussianNB(var_smoothing=0.1).fit(images, y))
    denoiser = late_mlp(n_classes, SIZE, device)
    clf = HybridClassifier(proposer, denoiser, top_k=TOP_K, allocation=FixedTrials(n_trials), random_state=0)
    return clf.fit(None, np.arange(n_classes)), images


# --- memory -----------------------------------------------------------------------------------------------------------


@cache
def in_process(point: Point, device: torch.device) -> dict[str, int]:
    """Peak bytes of a process that does nothing else, after loading and in all, on the host and on the GPU."""
    command = [sys.executable, "-m", "figures.growth", json.dumps(asdict(point)), str(device)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def peaks(point: Point, device: torch.device) -> dict[str, int]:
    """Report of this process to `in_process`."""
    ask = call(point, device)
    call(replace(point, images=1, trials=2), device)()  # loads all code and fills all caches, but no window
    forget_peaks()
    loaded = {"loaded": host_peak(), "gpu_loaded": gpu_peak()}
    ask()
    return loaded | {"peak": host_peak(), "gpu_peak": gpu_peak()}


def forget_peaks() -> None:
    """Let the peaks begin anew at what is in use now; the host's only on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def host_peak() -> int:
    """Most bytes this process has had in memory since `forget_peaks`.

    From /proc where there is one: what getrusage says there includes the parent's at the moment of the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def gpu_peak() -> int:
    """The same of tensors on the GPU, 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0


# --- what is shown ----------------------------------------------------------------------------------------------------


def lines(report: dict[str, Any]) -> list[Line]:
    """Growth of time and of memory beyond loading along each axis, then of memory beyond what the window holds."""
    bound, (fewer, more), (let_go, kept) = report["window_bytes"], report["beyond"], report["kept"]
    return [
        *(line for axis, series in report["axes"].items() for one in series for line in _lines(axis, one)),
        Line(
            f"peak memory, {fewer['images']:,} to {more['images']:,} images, more than the window holds",
            beyond_loading(more) / beyond_loading(fewer),
            at_most=1.1,
        ),
        Line(
            "peak memory over the window's bound, more images than it holds", beyond_loading(more) / bound, at_most=1.5
        ),
        Line(
            f"peak memory, {kept['images']:,} results kept over let go", beyond_loading(kept) / beyond_loading(let_go)
        ),
    ]


def _lines(axis: str, series: dict[str, Any]) -> list[Line]:
    first, last = series["values"][0], series["values"][-1]
    grown = f"{first:,} to {last:,} {axis}, {TIER_1[series['tier_1']]}"
    seconds, used = series["seconds_per_image"], [beyond_loading(m) for m in series["memory"]]
    sublinear = last / first if axis == "classes" and series["tier_1"] else None
    return [
        Line(f"time per image, {grown}", seconds[-1] / seconds[0], at_most=sublinear),
        Line(f"peak memory, {grown}", used[-1] / used[0]),
    ]


def beyond_loading(memory: dict[str, int]) -> int:
    """Bytes of the peak over what was loaded, on the host or the GPU, whichever is more; at least one page."""
    return max(memory["peak"] - memory["loaded"], memory["gpu_peak"] - memory["gpu_loaded"], 4096)


@styled
def draw(report: dict[str, Any]) -> Figure:
    """A column per axis: time per image over the first point's above, memory beyond loading below."""
    figure = Figure(figsize=(11, 6))
    panels = figure.subplots(2, len(AXES))
    for (above, below), (axis, both) in zip(panels.T, report["axes"].items(), strict=True):
        for colour, series in zip(COLOURS, both, strict=False):
            _curves(above, below, series, colour)
        above.set(xscale="log", yscale="log", title=axis)
        low, high = above.get_ylim()
        above.set_ylim(min(0.8, low), max(2.0, 1.2 * high))  # growth of a few per cent shall look like it
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter(NullFormatter())
        below.set(xscale="log", xlabel=axis)
        for axes in (above, below):
            axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0, 0].set(ylabel="time per image over the first's")
    panels[1, 0].set(ylabel="peak beyond loading, MiB")
    panels[0, 0].legend(fontsize=8)
    with_tier_1 = next(series for series in report["axes"]["classes"] if series["tier_1"])
    seconds, classes = with_tier_1["seconds_per_image"], with_tier_1["values"]
    title = (
        f"From {classes[0]:,} to {classes[-1]:,} classes an image takes {seconds[-1] / seconds[0]:.2g} times as long"
    )
    figure.suptitle(f"{title} behind tier 1 (medians of {report['repeats']} turns)", x=0.01, ha="left")
    return figure


def _curves(above: Any, below: Any, series: dict[str, Any], colour: str) -> None:
    values, name = series["values"], TIER_1[series["tier_1"]]
    seconds = np.array(series["seconds_per_image"])
    above.plot(values, seconds / seconds[0], "o-", color=colour, label=name)
    below.plot(values, [beyond_loading(m) / MIB for m in series["memory"]], "o-", color=colour, label=name)


if __name__ == "__main__":
    print(json.dumps(peaks(Point(**json.loads(sys.argv[1])), torch.device(sys.argv[2]))))
