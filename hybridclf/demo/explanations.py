"""Picture of an explanation: the image, where it looks like either class, what each trial said, and the sum."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..explanation import Explanation
from .style import GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_explanation"]

FOR_A, FOR_B, MAP = "#E08214", "#8073AC", "PuOr_r"
"""Colours of what speaks for either class: those of the map."""


@styled
def draw_explanation(explanation: Explanation, image: Any) -> "Figure":
    """Draw why class a and not class b.

    Parameters
    ----------
    explanation : Explanation
        Explanation of the image.
    image : PIL image, or array `[H, W]` or `[H, W, C]`
        The image; its values may have any range.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    a, b = str(explanation.a), str(explanation.b)
    figure = new_figure(11, 3.1)
    left, middle, trials, sums = figure.subplots(1, 4, width_ratios=(1, 1, 1.3, 1.1))
    pixels = _in_grey_or_colour(image)
    for axes in (left, middle):
        axes.imshow(pixels if axes is left else pixels.mean(axis=2), cmap="gray")
        axes.set_axis_off()
    left.set_title("image", fontsize=9)
    limit = float(np.abs(explanation.map).max()) or 1.0
    height, width = pixels.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    middle.imshow(explanation.map, cmap=MAP, vmin=-limit, vmax=limit, alpha=0.75, extent=extent)
    middle.set_title(f"orange: like {a}\npurple: like {b}", fontsize=9)
    order = np.argsort(explanation.t)
    gaps = explanation.gaps[order]
    trials.bar(np.arange(len(gaps)), gaps, color=[FOR_A if gap > 0 else FOR_B for gap in gaps])
    trials.set_xticks([0, len(gaps) - 1], [f"t = {explanation.t[order][i]:.2f}" for i in (0, -1)])
    trials.set_title(f"trials: {(gaps > 0).sum()} of {len(gaps)} for {a}", fontsize=9)
    trials.set_ylabel(f"error as {b} minus as {a}", fontsize=8)
    second = "tier 2" if explanation.asked else "tier 2\n(not asked)"
    parts = {"tier 1": explanation.prior, second: explanation.evidence, "sum": explanation.log_odds}
    sums.barh(list(parts), list(parts.values()), color=[FOR_A if v > 0 else FOR_B for v in parts.values()])
    sums.axvline(0, color=GREY, linewidth=0.8)
    sums.invert_yaxis()
    sums.set_title(f"log-odds of {a}\nover {b}", fontsize=9)
    figure.suptitle(_finding(explanation), x=0.01, ha="left", fontsize=11)
    return figure


def _in_grey_or_colour(image: Any) -> np.ndarray:
    """Pixels `[H, W, 3]` in [0, 1]."""
    pixels = np.asarray(image, dtype=float)
    pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    low, high = pixels.min(), pixels.max()
    high = 255.0 if high > 1 and np.asarray(image).dtype == np.uint8 else high
    low = 0.0 if high == 255.0 else low
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return (pixels - low) / max(high - low, 1e-12)


def _finding(explanation: Explanation) -> str:
    a, b = str(explanation.a), str(explanation.b)
    side, other = (a, b) if explanation.log_odds >= 0 else (b, a)
    if not explanation.asked:
        return f"{side} rather than {other}: tier 1 says so, and answers alone"
    agree = explanation.prior * explanation.evidence >= 0
    return f"{side} rather than {other}: {'both tiers say so' if agree else 'the tiers disagree'}"
