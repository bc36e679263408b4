"""Colours and style of every picture: the demo's, the benchmarks' and the documentation's.

matplotlib is needed for pictures alone, and imported when the first one is drawn.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from ..utils.installing import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "COLOURS",
    "FAINT",
    "GREY",
    "INK",
    "STYLE",
    "VERMILLION",
    "colour_of",
    "new_figure",
    "require_matplotlib",
    "styled",
]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Of Okabe and Ito's palette, which readers with any colour vision tell apart."""

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Colours of things that are no methods, in the order of their use."""

INK, GREY, FAINT = "#333333", "#888888", "#BBBBBB"

_METHODS = {
    "hybrid": VERMILLION,
    "race": VERMILLION,
    "tier 1": BLUE,
    "clip": BLUE,
    "staged": ORANGE,
    "pairedttest": SKY,
    "fixedtrials": PURPLE,
    "tier 2": PURPLE,
    "diffusion": PURPLE,
    "rival": GREEN,
    "svc": GREEN,
}
"""Colour of a method, by a word in its name in small letters; the first that occurs counts."""

STYLE = {
    "figure.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECECEC",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
}

P = ParamSpec("P")


def colour_of(method: str) -> str:
    """The colour that a method has in every picture; ink for one that has none."""
    return next((colour for word, colour in _METHODS.items() if word in method.lower()), INK)


def require_matplotlib() -> Any:
    """The matplotlib package.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    require("matplotlib.figure", "pictures need", "plot")
    import matplotlib

    return matplotlib


def styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Draw in our style, whatever the user's settings, and leave these alone."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        with require_matplotlib().rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches, that belongs to no window and no global state."""
    return require_matplotlib().figure.Figure(figsize=(width, height))
