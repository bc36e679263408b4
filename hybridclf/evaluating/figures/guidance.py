"""Classifier-free guidance: predictions pushed away from those without a prompt."""

from typing import Any

import numpy as np
from torch import Tensor

from ...captions import NO_PROMPT, without_template
from ...ports import Condition
from ...utils.progress import progress_bar
from ..study import Study
from .asking import Asking
from .drawing import Figure

__all__ = ["guidance"]

WEIGHTS = (-0.5, 0, 0.5, 1, 2, 4, 8)
"""Weights; at -1 all classes would have one error, that of no prompt."""

NONE = "w = 0"


def guidance(study: Study) -> Figure:
    """Accuracy of tier 2 alone with the guided prediction (1 + w)·ε̂(c) - w·ε̂(no prompt): Equation 10 of 2303.16203.

    An error is quadratic in w. With u = ε - ε̂(c) and v = ε̂(c) - ε̂(no prompt) it is |u|² - 2w·uv + w²·|v|², so two
    passes tell it for every w: no prompt has |u|² + 2uv + |v|², and w = 1 has |u|² - 2uv + |v|².
    """
    ask, denoiser = Asking(study), study.clf.denoiser_
    with progress_bar(total=2, desc="guidance", unit="pass", show=study.progress) as bar:
        first = np.zeros((len(ask.images), 1), dtype=int)
        nothing = ask.errors(denoiser=without_template(denoiser), classes=[NO_PROMPT], candidates=first)[..., 0]
        bar.update()
        guided = ask.errors(denoiser=_Guided(denoiser))[..., 0]
        bar.update()
    own = ask.recorded.errors["l2"].astype(float)
    product, square = (nothing - guided) / 4, (nothing + guided) / 2 - own
    tables = {f"w = {w:g}": own - 2 * w * product + w**2 * square for w in WEIGHTS}
    return ask.figure("guidance", tables, NONE, "Figure 8 of arXiv 2303.16203", "guidance: ")


class _Guided:
    """A denoiser of text whose predictions are guided by a weight of 1."""

    def __init__(self, denoiser: Any) -> None:
        self._denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def condition(self, labels: Any) -> Condition:
        """Conditions of the labels, each beside that of no prompt."""
        own = self._denoiser.condition(labels)
        nothing = without_template(self._denoiser).condition([NO_PROMPT])
        return {**own, **{f"no {k}": v.expand(len(own[k]), *v.shape[1:]) for k, v in nothing.items()}}

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Guided noise `[E, *shape]`."""
        own = {name: value for name, value in condition.items() if not name.startswith("no ")}
        nothing = {name: condition[f"no {name}"] for name in own}
        return 2 * self._denoiser.predict(x_t, t, row, own) - self._denoiser.predict(x_t, t, row, nothing)
