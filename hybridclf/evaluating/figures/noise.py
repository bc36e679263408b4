"""Noise: the same for all classes or not, and drawn from narrower distributions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import gammaln, ndtr, ndtri

from ...reranking.trials import TrialPlan
from ...utils.progress import progress_bar
from ..study import Study
from .asking import Asking
from .drawing import Figure

__all__ = ["CHANGES", "noise"]

SHARED = "normal, shared by all classes"

OWN = "normal, one for each class"


def noise(study: Study) -> Figure:
    """Accuracy of tier 2 alone when each class has noise of its own, and when noise is drawn otherwise."""
    ask = Asking(study)
    n_trials, shape, seed = study.recording.n_trials, study.clf.denoiser_.shape, study.recording.seed
    columns = np.split(ask.recorded.candidates, ask.recorded.candidates.shape[1], axis=1)
    tables, own = {SHARED: ask.recorded.errors["l2"]}, []
    with progress_bar(total=len(CHANGES) + len(columns), desc="noise", unit="pass", show=study.progress) as bar:
        for number, column in enumerate(columns, 1):
            own.append(ask.errors(plan=TrialPlan(n_trials, shape, seed + number), candidates=column)[..., 0])
            bar.update()
        tables[OWN] = np.concatenate(own, axis=2)
        for name, change in CHANGES.items():
            tables[name] = ask.errors(plan=_ChangedNoise(n_trials, shape, seed, change))[..., 0]
            bar.update()
    return ask.figure("noise", tables, SHARED, "Figure 2 and Table 12 of arXiv 2303.16203")


class _ChangedNoise(TrialPlan):
    """Trials of the same times whose noise `[m, *shape]` is changed before it is used."""

    def __init__(
        self, n_trials: int, shape: Sequence[int], seed: int, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(n_trials, shape, seed)
        self._change = change

    def noise(self, positions: np.ndarray) -> np.ndarray:
        return self._change(super().noise(positions)).astype(np.float32)


def _truncated(noise: np.ndarray, limit: float) -> np.ndarray:
    """The normal distribution within ±limit, by the quantiles that standard normal noise has in the whole one."""
    low = ndtr(-limit)
    return ndtri(low + ndtr(noise.astype(float)) * (1 - 2 * low))


def _normed(noise: np.ndarray) -> np.ndarray:
    """Noise `[m, *shape]` scaled to the norm that standard normal noise is expected to have: √2 Γ((d+1)/2) / Γ(d/2)."""
    size = noise[0].size
    expected = np.sqrt(2) * np.exp(gammaln((size + 1) / 2) - gammaln(size / 2))
    norms = np.sqrt(np.square(noise).sum(axis=tuple(range(1, noise.ndim)), keepdims=True))
    return noise * expected / norms


CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": np.zeros_like,
    "truncated to [-1, 1]": lambda noise: _truncated(noise, 1.0),
    "truncated to [-2.5, 2.5]": lambda noise: _truncated(noise, 2.5),
    "of the expected norm": _normed,
}
"""Table 12 of arXiv 2303.16203."""
