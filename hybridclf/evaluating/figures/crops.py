"""Error maps whose edges are left out."""

from functools import partial

import numpy as np
from torch import Tensor

from ...denoising.objectives import OBJECTIVES
from ..study import Study
from .asking import Asking
from .drawing import Figure

__all__ = ["crops"]

SHARES = (0, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8)
"""Amounts cropped, as shares of a side."""

WHOLE = "nothing"


def crops(study: Study) -> Figure:
    """Accuracy of tier 2 alone when errors are summed over the middle of the image only: Equation 11 of 2303.16203."""
    ask, side = Asking(study), min(study.clf.denoiser_.shape[1:])
    amounts = np.unique(np.round(side * np.array(SHARES)).astype(int)).tolist()
    names = {i: f"{i} of {side} off each side" if i else WHOLE for i in amounts}
    errors = ask.errors(objectives={names[i]: partial(_cropped, i) for i in amounts})
    tables = dict(zip(names.values(), np.moveaxis(errors, 3, 0), strict=True))
    return ask.figure("crops", tables, WHOLE, "Figure 9 of arXiv 2303.16203", "cropped: ")


def _cropped(amount: int, noise: Tensor, predicted: Tensor) -> Tensor:
    """Squared errors `[E]` without `amount` rows and columns at each edge."""
    height, width = noise.shape[-2:]
    middle = (..., slice(amount, height - amount), slice(amount, width - amount))
    return OBJECTIVES["l2"](noise[middle], predicted[middle])
