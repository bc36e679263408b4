"""Errors of every trial and candidate under several objectives at once, from one prediction each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoising.batch_size import Batches
from ..denoising.evaluator import EvaluationErrors, Rows, noised
from ..denoising.objectives import BOUNDS, OBJECTIVES, Objective, resolve_objective
from ..devices import send
from ..ports import VarianceDenoiser, n_prompts
from ..reranker import Reranker

__all__ = ["AllErrors", "objectives_of"]

BLOCK = 4
"""Batches of rows that are noised at a time."""


def objectives_of(denoiser: Any) -> tuple[str, ...]:
    """Names of all objectives that a denoiser can be asked for: the bounds need a learned variance."""
    return tuple(OBJECTIVES | BOUNDS) if isinstance(denoiser, VarianceDenoiser) else tuple(OBJECTIVES)


class _StackedErrors(EvaluationErrors):
    """Errors `[E, m]` of E evaluations under m objectives, which share the prediction."""

    def __init__(self, denoiser: Any, objectives: Mapping[str, Objective], batch_size: int) -> None:
        super().__init__(denoiser, next((o for o in objectives if o in BOUNDS), "l2"), batch_size)
        self._objectives = objectives
        self._error = self._stacked

    def _stacked(self, noise: Tensor, predicted: Tensor, *transition: Any) -> Tensor:
        errors = [e(noise, predicted, *(transition if n in BOUNDS else ())) for n, e in self._objectives.items()]
        return torch.stack(errors, dim=1)


class AllErrors:
    """Asks a denoiser for the errors of every candidate in every trial: a dense table, nothing is dropped.

    Encoding, noise, batches and padding are those of `Reranker`, so that its errors are the same.

    Parameters
    ----------
    stage : Reranker
        Denoiser, trials and batch size.
    classes : array `[C]`
        The labels.
    objectives : sequence of m str, or m functions by name
        Errors between noise and predicted noise.
    """

    def __init__(
        self, stage: Reranker, classes: np.ndarray, objectives: Sequence[str] | Mapping[str, Objective]
    ) -> None:
        self.denoiser, self.plan, self.objectives = stage.denoiser, stage.plan, tuple(objectives)
        number, self.conditions = stage.condition(classes.tolist())
        self.number = np.array([number[label] for label in classes.tolist()])
        self.n_prompts = n_prompts(self.conditions, len(number))
        by_name = objectives if isinstance(objectives, Mapping) else {o: resolve_objective(o) for o in objectives}
        self.errors = _StackedErrors(self.denoiser, by_name, stage.batch_size)
        self.encoding = Batches(stage.batch_size)
        self.dtype = np.float64 if self.denoiser.dtype == torch.float64 else np.float32

    @torch.inference_mode()
    def __call__(self, images: Any, candidates: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Unweighted errors `[n, T, k, m]`.

        Parameters
        ----------
        images : sequence of n images
            What the denoiser encodes.
        candidates : int array `[n, k]`
            Positions of the classes to compare.
        trials : int array `[T]`
            Positions of the trials in the plan.
        """
        encoded = self.encoding(lambda start, size: self.denoiser.encode(images[start : start + size]), len(images))
        x0 = torch.cat(encoded).to(self.denoiser.device, self.denoiser.dtype)
        (n, k), n_trials = candidates.shape, len(trials)
        image, trial = np.repeat(np.arange(n), n_trials), np.tile(trials, n)  # row by row: image 0 first
        table = np.empty((n * n_trials, k, len(self.objectives)), dtype=self.dtype)
        step = BLOCK * self.errors.batches.size
        for start in range(0, len(table), step):
            block = slice(start, start + step)
            index = send(torch.from_numpy(image[block]), x0.device)
            rows = noised(self.denoiser, self.plan, x0[index], trial[block])
            table[block] = self._errors(rows, candidates[image[block]])
        return table.reshape(n, n_trials, k, -1)

    def _errors(self, rows: Rows, candidates: np.ndarray) -> np.ndarray:
        """Errors `[R, k, m]` of rows under candidates `[R, k]`: means over the prompts of a class."""
        (n_rows, k), p = candidates.shape, self.n_prompts
        # Two prompts a class: classes 3 and 5 are the conditions 6, 7, 10 and 11.
        condition = (self.number[candidates][..., None] * p + np.arange(p)).ravel()
        errors = self.errors(rows, np.repeat(np.arange(n_rows), k * p), condition, self.conditions)
        return errors.view(n_rows, k, p, -1).mean(dim=2).cpu().numpy()
