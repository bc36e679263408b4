"""Figure 5: tier 1's share of a whole call, and what starting up costs over what it rests on."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from timing import medians

from hybridclf import HybridClassifier

from .common import Line, bars, styled
from .workloads import digits_images, digits_mlp

FIRST = """
from sklearn.datasets import load_digits
from hybridclf import HybridClassifier
HybridClassifier.from_pretrained("digits").predict(load_digits().images[:1])
"""
START_UPS = {
    "import hybridclf over an empty Python": ("import hybridclf", "pass"),
    "first digit over importing torch and scikit-learn": (
        FIRST,
        "import sklearn.datasets, sklearn.linear_model, torch",
    ),
}
"""Programs, and what they are compared with."""


@dataclass(frozen=True)
class Sizes:
    """Images in one call, repeats of the timings of calls and of programs, and the programs by name."""

    images: int
    repeats: int
    program_repeats: int
    programs: Mapping[str, tuple[str, str]]


SIZES = {"small": Sizes(450, 7, 3, START_UPS), "full": Sizes(450, 15, 7, START_UPS)}


def measure(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The embedded digits pair."""
    clf = HybridClassifier.from_pretrained("digits")
    clf.denoiser_ = digits_mlp(1, device).denoiser
    images = digits_images(sizes.images)
    tier_1, whole = medians(partial(clf.propose, images), partial(clf.decide, images), repeats=sizes.repeats).tolist()
    return {
        "images": sizes.images,
        "tier_1_seconds": tier_1,
        "seconds": whole,
        "tier_1_share": tier_1 / whole,
        "start_ups": {name: start_up(*pair, sizes, device) for name, pair in sizes.programs.items()},
    }


def start_up(program: str, other: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Seconds of both programs, run in turn, and their ratio."""
    hidden = {} if device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    run = partial(subprocess.run, check=True, env=os.environ | hidden)
    programs = (partial(run, [sys.executable, "-c", p]) for p in (program, other))
    seconds, other_seconds = medians(*programs, repeats=sizes.program_repeats).tolist()
    return {"seconds": seconds, "other_seconds": other_seconds, "ratio": seconds / other_seconds}


def lines(report: dict[str, Any]) -> list[Line]:
    """Tier 1's share, and the start-ups."""
    share = Line("tier 1's share of a call, digits pair", 100 * report["tier_1_share"], "%")
    return [share, *(Line(name, times["ratio"]) for name, times in report["start_ups"].items())]


@styled
def draw(report: dict[str, Any]) -> Figure:
    """Bars: the share, and the ratios."""
    figure = Figure(figsize=(9, 4))
    share, start = figure.subplots(2, 1, height_ratios=(1, 2))
    bars(share, {"tier 1": 100 * report["tier_1_share"], "tier 2": 100 * (1 - report["tier_1_share"])}, "{:.0f} %")
    share.set(xlabel=f"time of a call of {report['images']} images, %")
    figure.suptitle(f"The digits pair: tier 1 takes {100 * report['tier_1_share']:.0f} % of a call", x=0.01, ha="left")
    bars(start, {name: times["ratio"] for name, times in report["start_ups"].items()})
    start.set(xlabel="times as long")
    return figure
