"""The published procedures as their authors run them, in our own plain writing: what our speed is compared with.

One image at a time; every (trial, class) pair is a row of its own in batches of 32; a stage ends before the next one
begins. Appendix F.1 of arXiv 2303.16203: batches of 32, fp16 on a GPU (here the denoiser's own dtype).
They are given what costs nothing to give: conditions and noise are made once and stay on the device, nothing is padded,
and errors come back once per batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.special import stdtr
from torch import Tensor

from hybridclf import Denoiser
from hybridclf.models import LateConditionedDenoiser
from hybridclf.ports import Condition, Label, take
from hybridclf.reranking.trials import TrialPlan

__all__ = ["BATCH", "Answer", "ReferenceLoops"]

BATCH = 32
"""Rows of a batch: Appendix F.1 of arXiv 2303.16203."""


@dataclass(frozen=True)
class Answer:
    """The best label of those that stayed, and the errors `[T, C]`, nan where none was measured."""

    label: Label
    errors: np.ndarray

    @property
    def evaluations(self) -> int:
        """Cost of the image."""
        return int(np.isfinite(self.errors).sum())


class ReferenceLoops:
    """Both loops over one denoiser.

    Parameters
    ----------
    denoiser : Denoiser
        The conditional diffusion model.
    labels : sequence of C labels
        The classes, all of which every image is compared under.
    plan : TrialPlan
        Times and noise of the trials: a Reranker's plan gives both loops and it the same ones.
    """

    def __init__(self, denoiser: Denoiser, labels: Sequence[Label], plan: TrialPlan) -> None:
        self.denoiser, self.labels = denoiser, list(labels)
        self.condition = denoiser.condition(self.labels)
        exact = torch.promote_types(denoiser.dtype, torch.float32)
        every = np.arange(len(plan))
        self.t = torch.from_numpy(plan.timesteps(every)).to(denoiser.device, exact)
        self.noise = torch.from_numpy(plan.noise(every)).to(denoiser.device, exact)
        self.alpha, self.sigma = (v.view(-1, *(1,) * len(denoiser.shape)) for v in denoiser.noise_levels(self.t))

    @torch.inference_mode()
    def staged(self, image: Any, keep: Sequence[int], trials: Sequence[int]) -> Answer:
        """Algorithm 2 of arXiv 2303.16203: after each stage the `keep` classes with the lowest mean errors stay."""
        x0, errors, alive, done = self.denoiser.encode([image]), self._empty(trials[-1]), self._all(), 0
        for kept, end in zip(keep, trials, strict=True):
            errors[done:end, alive] = self._errors(x0, range(done, end), alive)
            alive = alive[errors[:end, alive].mean(axis=0).argsort(kind="stable")[:kept]]
            done = end
        return Answer(self.labels[alive[0]], errors)

    @torch.inference_mode()
    def t_test(self, image: Any, p: float, min_trials: int, max_trials: int) -> Answer:
        """Algorithm 1 of arXiv 2303.15233: classes that a paired t-test tells from the best one are dropped.

        The trials before the first test share batches, as nothing can be dropped there; then it is one at a time.
        """
        x0, errors, alive, done = self.denoiser.encode([image]), self._empty(max_trials), self._all(), 0
        while len(alive) > 1 and done < max_trials:
            end = max(done + 1, min_trials)
            errors[done:end, alive] = self._errors(x0, range(done, end), alive)
            seen = errors[:end, alive]
            best = seen.mean(axis=0).argmin()
            alive, done = alive[_p_values(seen, best) >= p], end
        return Answer(self.labels[alive[np.nanmean(errors[:, alive], axis=0).argmin()]], errors)

    def _empty(self, n_trials: int) -> np.ndarray:
        return np.full((n_trials, len(self.labels)), np.nan)

    def _all(self) -> np.ndarray:
        return np.arange(len(self.labels))

    def _errors(self, x0: Tensor, trials: Sequence[int], classes: np.ndarray) -> np.ndarray:
        """Squared errors `[trials, classes]` of one image x0 `[1, …]`, batch by batch."""
        pairs = torch.tensor(list(product(trials, classes.tolist())), device=x0.device)
        errors = torch.cat([self._batch(x0, *batch.unbind(1)).cpu() for batch in pairs.split(BATCH)])
        return errors.double().numpy().reshape(len(trials), len(classes))

    def _batch(self, x0: Tensor, trial: Tensor, label: Tensor) -> Tensor:
        """Squared ℓ2 errors `[P]` of an image in the trials `[P]` under the classes `[P]`."""
        noise = self.noise[trial]
        x_t = self.alpha[trial] * x0 + self.sigma[trial] * noise
        predicted = _predict(self.denoiser, x_t.to(x0.dtype), self.t[trial], take(self.condition, label))
        return (predicted.to(noise.dtype) - noise).square().flatten(1).sum(1)


def _predict(denoiser: Denoiser, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Predicted noise `[P, *shape]`, a row for each pair; without the padding of a late-conditioned denoiser's head."""
    row = torch.arange(len(x_t), device=x_t.device)
    if isinstance(denoiser, LateConditionedDenoiser):
        return denoiser.network(x_t, t, row, condition["label"])
    return denoiser.predict(x_t, t, row, condition)


def _p_values(errors: np.ndarray, best: int) -> np.ndarray:
    """Two-sided p-values `[C]` of paired t-tests of errors `[n, C]` against the best; 1 where they do not differ."""
    n, difference = len(errors), errors - errors[:, [best]]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = difference.mean(axis=0) / (difference.std(axis=0, ddof=1) / np.sqrt(n))
    return np.nan_to_num(2 * stdtr(n - 1, -np.abs(t)), nan=1.0)
