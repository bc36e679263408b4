"""Figures of an evaluation: functions from a `Study` to a `Figure`, by name."""

from collections.abc import Callable, Sequence

from ...errors import InvalidInputError
from ..study import Study
from .drawing import Figure
from .frontier import frontier
from .noise import noise
from .objectives import objectives
from .reliability import reliability
from .stages import stages
from .strategies import strategies
from .t_test import t_test
from .temperature import temperature
from .timesteps import timesteps
from .weightings import weightings

__all__ = ["ALL", "ALWAYS", "FIGURES", "Figure", "figure_names", "make_figure"]

ALL = "all"

FIGURES: dict[str, Callable[[Study], Figure]] = {
    "frontier": frontier,
    "reliability": reliability,
    "timesteps": timesteps,
    "strategies": strategies,
    "objectives": objectives,
    "stages": stages,
    "weightings": weightings,
    "t_test": t_test,
    "temperature": temperature,
    "noise": noise,
}
"""Figures by name; a new one is a function in a module of its own, and a line here."""

ALWAYS = ("frontier", "reliability")
"""Figures of every report."""


def figure_names(asked: Sequence[str]) -> list[str]:
    """Names of the figures in a report: those that are always there, then what is asked for; "all" is every one.

    Raises
    ------
    InvalidInputError
        For a name that no figure has.
    """
    unknown = [name for name in asked if name not in {*FIGURES, ALL}]
    if unknown:
        further = ", ".join(name for name in FIGURES if name not in ALWAYS)
        raise InvalidInputError(f"there is no figure {unknown[0]!r}; there are {further}, and {ALL} for all of them")
    return list(dict.fromkeys([*ALWAYS, *(FIGURES if ALL in asked else asked)]))


def make_figure(name: str, study: Study) -> Figure:
    """The figure of that name."""
    return FIGURES[name](study)
