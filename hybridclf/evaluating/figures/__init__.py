"""Figures of an evaluation: functions from a `Study` to a `Figure`, by name."""

from collections.abc import Callable

from ..study import Study
from .drawing import Figure
from .frontier import frontier
from .reliability import reliability

__all__ = ["ALWAYS", "FIGURES", "Figure", "make_figure"]

FIGURES: dict[str, Callable[[Study], Figure]] = {"frontier": frontier, "reliability": reliability}
"""Figures by name; a new one is a function in a module of its own, and a line here."""

ALWAYS = ("frontier", "reliability")
"""Figures of every report."""


def make_figure(name: str, study: Study) -> Figure:
    """The figure of that name."""
    return FIGURES[name](study)
