"""Time and floating-point operations of methods relative to tier 1, measured side by side on a few images."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.arrays import Items
from ..estimator import HybridClassifier
from ..utils.progress import progress_bar
from .methods import Method, run
from .scores import Score

__all__ = ["Cost", "measure_costs"]

TURNS = 3
"""Times that every method is run after a warm-up; the median counts."""

MOST_IMAGES, MOST_ROWS = 128, 128
"""Images that a method is run on at most, and rows that it may need for them by its mean; at least `FEWEST`."""

FEWEST = 2

SECONDS = 2.0
"""Time that tier 1 may take in a run; a pretrained network of large images takes it for few of them."""


@dataclass(frozen=True)
class Cost:
    """Cost of a method per image, as a multiple of tier 1's.

    Attributes
    ----------
    method : str
        Its name.
    n_images : int
        Images that it was run on.
    time : float
        Median ratio over turns in which both ran.
    flops : float or None
        Ratio of multiplications and additions in torch's networks; None where tier 1 has none.
    seconds : float
        Median time per image.
    """

    method: str
    n_images: int
    time: float
    flops: float | None
    seconds: float


def measure_costs(
    clf: HybridClassifier,
    methods: Sequence[Method],
    scores: Sequence[Score],
    items: Items,
    n_trials: int,
    progress: bool,
) -> list[Cost]:
    """Run every method on as many of the first images as it can answer soon, in turn with the others.

    Parameters
    ----------
    clf : HybridClassifier
        Both tiers.
    methods : sequence of Method
        The first is tier 1.
    scores : sequence of Score
        Theirs, which say how many rows an image needs.
    items : Items
        n images in an order that chance decides.
    n_trials : int
        Trials of the recording that the methods were replayed from.
    progress : bool
        Whether to show a progress bar.
    """
    counts = [int(np.clip(MOST_ROWS / max(s.rows, 1e-9), FEWEST, MOST_IMAGES)) for s in scores]
    clf = copy.copy(clf)  # a quiet one
    clf.verbose = False
    few = items.select(np.arange(min(FEWEST, len(items))))
    first = [_seconds(partial(run, methods[0], clf, few, n_trials)) for _ in range(2)][1]  # after a warm-up
    most = min(len(items), max(FEWEST, int(SECONDS * len(few) / first)))
    counts = [min(count, most) for count in counts]
    calls = [
        partial(run, method, clf, items.select(np.arange(count)), n_trials)
        for method, count in zip(methods, counts, strict=True)
    ]
    with progress_bar(total=(TURNS + 1) * len(calls), desc="time", unit="run", leave=None, show=progress) as bar:
        flops = np.array([_flops(call, bar) for call in calls]) / counts  # and a warm-up
        seconds = np.empty((TURNS, len(calls)))
        for turn, i in np.ndindex(seconds.shape):
            seconds[turn, i] = _seconds(calls[i]) / counts[i]
            bar.update()
    return [
        Cost(
            method=method.name,
            n_images=counts[i],
            time=float(np.median(seconds[:, i] / seconds[:, 0])),
            flops=float(flops[i] / flops[0]) if flops[0] else None,
            seconds=float(np.median(seconds[:, i])),
        )
        for i, method in enumerate(methods)
    ]


def _flops(call: Callable[[], Any], bar: Any) -> int:
    """Floating-point operations of the networks in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    bar.update()
    return counter.get_total_flops()


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of a call, and of what it left to a GPU."""
    _finish()
    start = perf_counter()
    call()
    _finish()
    return perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
