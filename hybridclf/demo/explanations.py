"""Picture of an explanation: the image, where it looks like either class, what each trial said, and the sum.

With a counterfactual, also the image as tier 2 regenerates it under either class.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..counterfactual import Counterfactual
from ..explanation import Explanation
from .style import GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_explanation"]

FOR_A, FOR_B, MAP = "#E08214", "#8073AC", "PuOr_r"
"""Colours of what speaks for either class: those of the map."""


@styled
def draw_explanation(explanation: Explanation, image: Any, counterfactual: Counterfactual | None = None) -> "Figure":
    """Draw why class a and not class b.

    Parameters
    ----------
    explanation : Explanation
        Explanation of the image.
    image : PIL image, or array `[H, W]` or `[H, W, C]`
        The image; its values may have any range.
    counterfactual : Counterfactual, optional
        Counterfactual of the image for the same two classes, to be drawn beside it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    a, b = str(explanation.a), str(explanation.b)
    pixels = _in_grey_or_colour(image, *_range(image))
    titled = {"image": pixels} | ({} if counterfactual is None else _titled(counterfactual))
    n = len(titled)
    figure = new_figure(9 + 2 * n, 3.1)
    *shown, middle, trials, sums = figure.subplots(1, n + 3, width_ratios=(*(1,) * (n + 1), 1.3, 1.1))
    for axes, (title, picture) in zip(shown, titled.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=9)
    middle.imshow(pixels.mean(axis=2), cmap="gray")
    for axes in (*shown, middle):
        axes.set_axis_off()
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


def _titled(counterfactual: Counterfactual) -> dict[str, np.ndarray]:
    """Pixels `[H, W, 3]` of the reconstruction and the change, by their titles."""
    made = {
        f"regenerated\nas {counterfactual.a}": counterfactual.reconstruction_a,
        f"changed\nto {counterfactual.b}": counterfactual.changed,
    }
    # its own image may have another type than the one that was given, such as 16 bits
    bounds = _range(counterfactual.image)
    return {title: _in_grey_or_colour(picture, *bounds) for title, picture in made.items()}


def _range(image: Any) -> tuple[float, float]:
    """Black and white of an image: 0 and 255 of bytes, else its lowest and highest value."""
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8 and pixels.max() > 1:
        return 0.0, 255.0
    return float(pixels.min()), float(pixels.max())


def _in_grey_or_colour(image: Any, low: float, high: float) -> np.ndarray:
    """Pixels `[H, W, 3]` in [0, 1], of which `low` was 0 and `high` was 1; others are clipped."""
    pixels = np.asarray(image, dtype=float)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return ((pixels - low) / max(high - low, 1e-12)).clip(0, 1)


def _finding(explanation: Explanation) -> str:
    a, b = str(explanation.a), str(explanation.b)
    side, other = (a, b) if explanation.log_odds >= 0 else (b, a)
    if not explanation.asked:
        return f"{side} rather than {other}: tier 1 says so, and answers alone"
    agree = explanation.prior * explanation.evidence >= 0
    return f"{side} rather than {other}: {'both tiers say so' if agree else 'the tiers disagree'}"
