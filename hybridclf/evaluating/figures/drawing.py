"""A figure: its finding, its numbers, and its picture as SVG whose colours follow the page's."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from ...demo.style import COLOURS, GREY, INK, STYLE, require_matplotlib
from ...errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["Figure", "drawn", "styles"]

_COLOURS: dict[str, str] = {
    INK: "currentColor",
    GREY: "var(--grey)",
    str(STYLE["grid.color"]): "var(--line)",
    "#ffffff": "var(--page)",
}
"""CSS colours of a page, light or dark, by the fixed colour that they replace."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes
    ----------
    name : str
        By which it is asked for.
    title : str
        What it shows, a sentence.
    reference : str
        Whose figure or table it is beside, such as "Figure 3 of arXiv 2303.16203"; "" for none.
    rows : sequence of mappings
        Its numbers, as plain JSON.
    svg : str
        Its picture; "" where matplotlib is not installed.
    """

    name: str
    title: str
    reference: str
    rows: Sequence[Mapping[str, Any]]
    svg: str


def drawn(draw: "Callable[[], Drawing]") -> str:
    """The SVG of what a function draws in the package's style; "" where matplotlib is not installed."""
    try:
        matplotlib = require_matplotlib()
    except MissingDependencyError:
        return ""
    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "hybridclf", "axes.facecolor": "none"}):
        file = io.StringIO()
        draw().savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        svg = re.sub(colour, variable, svg, flags=re.IGNORECASE)
    return svg


def styles() -> Iterator[dict[str, Any]]:
    """Colour and marker of one curve after the other, as `errorbar` takes them."""
    for colour, marker in zip(cycle([INK, *COLOURS, GREY]), cycle("osD^vP*X")):
        yield {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.2}
