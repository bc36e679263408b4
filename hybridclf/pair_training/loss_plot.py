"""Plot of a training: each network's loss on training and held-out images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..demo.style import BLUE, FAINT, INK, VERMILLION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_losses"]

SMOOTH = 50
"""Most points of the smoothed curve."""

Entries = Sequence[Mapping[str, float]]


@styled
def plot_losses(losses: Mapping[str, Entries]) -> "Figure":
    """Plot loss over steps, one panel per network.

    Parameters
    ----------
    losses : mapping from name to entries
        "losses" in the log of a `TrainingRun`: entries of "step", "loss" and, in some, "held_out".

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(5 * len(losses), 3.6)
    for axes, (name, entries) in zip(figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True):
        _curves(axes, entries)
        axes.set_title(name)
        axes.set_xlabel("steps")
    figure.axes[0].set_ylabel("loss")
    figure.axes[0].legend()
    return figure


def _curves(axes: "Axes", entries: Entries) -> None:
    """Draw the logged loss, its mean over stretches of steps, and the held-out loss."""
    step, loss = (np.array([entry[name] for entry in entries], dtype=float) for name in ("step", "loss"))
    # [2, entries] of each stretch, whose mean is one point (step, loss) of the smoothed curve
    stretches = [
        np.stack([step, loss])[:, index] for index in np.array_split(np.arange(len(step)), min(SMOOTH, len(step)))
    ]
    # every entry faint, the smoothed curve on top
    axes.plot(step, loss, color=FAINT, linewidth=0.8)
    axes.plot(*np.array([stretch.mean(axis=1) for stretch in stretches]).T, color=BLUE, linewidth=2, label="training")
    checks = [(entry["step"], entry["held_out"]) for entry in entries if "held_out" in entry]
    axes.plot(*zip(*checks, strict=True), ".-", color=VERMILLION, linewidth=1.6, label="held out")
    axes.tick_params(colors=INK)
