"""The picture of a training: each part's loss, on the images it is trained on and on held-out ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..demo.style import BLUE, FAINT, INK, VERMILLION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_losses"]

SMOOTH = 50
"""Points of the smoothed curve, at most."""

Entries = Sequence[Mapping[str, float]]


@styled
def plot_losses(losses: Mapping[str, Entries]) -> "Figure":
    """Loss over steps, one panel per part.

    Parameters
    ----------
    losses : mapping from part to entries
        As the log of a `TrainingRun` has them: "step", "loss" and, in some, "held_out".

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(5 * len(losses), 3.6)
    for axes, (part, entries) in zip(figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True):
        _curves(axes, entries)
        axes.set_title(part)
        axes.set_xlabel("steps")
    figure.axes[0].set_ylabel("loss")
    figure.axes[0].legend()
    return figure


def _curves(axes: "Axes", entries: Entries) -> None:
    """The loss as it was logged, its mean over stretches, and the held-out loss where it was looked at."""
    step, loss = (np.array([entry[name] for entry in entries], dtype=float) for name in ("step", "loss"))
    stretches = [
        np.stack([step, loss])[:, part] for part in np.array_split(np.arange(len(step)), min(SMOOTH, len(step)))
    ]
    axes.plot(step, loss, color=FAINT, linewidth=0.8)
    axes.plot(*np.array([stretch.mean(axis=1) for stretch in stretches]).T, color=BLUE, linewidth=2, label="training")
    checks = [(entry["step"], entry["held_out"]) for entry in entries if "held_out" in entry]
    axes.plot(*zip(*checks, strict=True), ".-", color=VERMILLION, linewidth=1.6, label="held out")
    axes.tick_params(colors=INK)
