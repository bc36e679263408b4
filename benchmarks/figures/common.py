"""Shared by all figures: a line of the table, the machine's name, the style of the pictures."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridclf.demo.style import COLOURS, INK, colour_of, styled

__all__ = ["COLOURS", "Line", "bars", "colour_of", "machine", "styled"]


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, in which range over repeats, and what is aimed at."""

    what: str
    value: float
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    span: Sequence[float] = ()

    @property
    def measured(self) -> str:
        """The value with its unit, and the smallest and largest of its repeats if they are known."""
        if not np.isfinite(self.value):
            return "not reached"
        return f"{self.value:.3g} {self.unit}" + (" ({:.3g} to {:.3g})".format(*self.span) if self.span else "")

    @property
    def wanted(self) -> str:
        """The bound, empty if there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """True if the bound is kept; empty if there is none."""
        if not self.wanted:
            return ""
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return "holds" if low <= self.value <= high else "missed"


def machine(device: torch.device) -> dict[str, Any]:
    """The machine that was measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "device": device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def bars(
    axes: Any, values: dict[str, float], text: str = "{:.3g}", spans: Sequence[Sequence[float] | None] = ()
) -> None:
    """Horizontal bars with their values beside them, and lines from the smallest to the largest repeat, if known."""
    names = list(values)
    drawn = axes.barh(names, list(values.values()), color=COLOURS[0], height=0.6)
    for name, span in zip(names, spans, strict=False):
        if span:
            axes.plot(span, [name, name], color=INK, linewidth=1.2)
    ends = [max([v, *(span or ())]) - v for v, span in zip(values.values(), spans or [None] * len(names), strict=True)]
    for bar, value, end in zip(drawn, values.values(), ends, strict=True):
        at = (value + end, bar.get_y() + bar.get_height() / 2)
        axes.annotate(text.format(value), at, xytext=(4, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
