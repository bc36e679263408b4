"""Figures of an evaluation: functions from a `Study` to a `Figure`, by name."""

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidInputError
from ...ports import TextModel
from ..study import Study
from .crops import crops
from .drawing import Figure
from .frontier import frontier
from .guidance import guidance
from .noise import noise
from .objectives import objectives
from .prompts import prompts
from .reliability import reliability
from .resolution import resolution
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
    "prompts": prompts,
    "guidance": guidance,
    "resolution": resolution,
    "crops": crops,
}
"""Figures by name; a new one is a function in a module of its own, and a line here."""

ALWAYS = ("frontier", "reliability")
"""Figures of every report."""


OF_TEXT, OF_IMAGES = ("prompts", "guidance"), ("resolution", "crops")
"""Figures of denoisers that are models of text, and of denoisers of images."""


def figure_names(asked: Sequence[str], denoiser: Any = None) -> list[str]:
    """Names of the figures in a report: those that are always there, then what is asked for.

    Parameters
    ----------
    asked : sequence of str
        Names; "all" is every figure that there can be of the denoiser.
    denoiser : Denoiser, optional
        Tier 2. Default: not known yet.

    Raises
    ------
    InvalidInputError
        For a name that no figure has, or a figure that there cannot be of the denoiser.
    """
    unknown = [name for name in asked if name not in {*FIGURES, ALL}]
    if unknown:
        further = ", ".join(name for name in FIGURES if name not in ALWAYS)
        raise InvalidInputError(f"there is no figure {unknown[0]!r}; there are {further}, and {ALL} for all of them")
    cannot = {} if denoiser is None else _impossible(denoiser)
    for name in asked:
        if name in cannot:
            raise InvalidInputError(
                f"figure {name!r} needs a denoiser of {cannot[name]}; leave it out, or ask for {ALL}"
            )
    chosen = (name for name in FIGURES if name not in cannot) if ALL in asked else asked
    return list(dict.fromkeys([*ALWAYS, *chosen]))


def _impossible(denoiser: Any) -> dict[str, str]:
    """Names of the figures that there cannot be of a denoiser, with what they need."""
    of_text = {} if isinstance(denoiser, TextModel) else dict.fromkeys(OF_TEXT, "text, such as Stable Diffusion")
    return of_text | ({} if len(denoiser.shape) == 3 else dict.fromkeys(OF_IMAGES, "images"))


def make_figure(name: str, study: Study) -> Figure:
    """The figure of that name."""
    return FIGURES[name](study)
