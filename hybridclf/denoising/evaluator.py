"""The evaluator that asks a denoiser: images become noised rows, and batches of them errors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import select
from ..devices import receive, send
from ..ports import Condition, Denoiser, Label, VarianceDenoiser, take
from ..reranking.batches import Batch, Capacity, Pending
from ..reranking.tasks import Task
from ..reranking.trials import TrialPlan
from .batch_size import Batches
from .conditions import ConditionTable
from .lookahead import Foresight
from .objectives import BOUNDS, Transition, check_objective, resolve_objective

__all__ = ["DenoiserEvaluator", "EvaluationErrors", "Rows", "batch_capacity"]

PAIRS_PER_ROW = 16
"""Pairs that a batch counted in rows may hold, for each of its rows."""

PADDED_TO = 64
"""What the number of pairs in a batch counted in rows is brought to a multiple of: how a GPU takes the sum of a pair's
squares depends on how many pairs there are, up to sixteen.
"""


class Rows(NamedTuple):
    """R noised images x_t = α·x0 + σ·ε at times t: `[R]` and `[R, *shape]`."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    noise: Tensor
    x_t: Tensor


def batch_capacity(denoiser: Denoiser, batch_size: int) -> Capacity:
    """Rows and pairs of a batch of that size, which is in the denoiser's `cost_unit`."""
    by_row = denoiser.cost_unit == "row"
    return Capacity(batch_size, batch_size * (PAIRS_PER_ROW if by_row else 1), splits=not by_row)


class EvaluationErrors:
    """Errors of pairs under one objective.

    Parameters
    ----------
    denoiser : Denoiser
        What predicts.
    objective : str
        Name of the error between noise and predicted noise.
    batch_size : int
        Rows or pairs in one batch, by the denoiser's `cost_unit`.

    Raises
    ------
    InvalidInputError
        For an objective that there is not, or that needs a variance which the denoiser has not learned.
    """

    def __init__(self, denoiser: Denoiser, objective: str, batch_size: int) -> None:
        self.denoiser, self.objective, self.batches = denoiser, objective, Batches(batch_size)
        self._error = resolve_objective(objective)
        check_objective(objective, denoiser)

    def __call__(self, rows: Rows, row: np.ndarray, label: np.ndarray, conditions: Condition) -> Tensor:
        """Errors `[P]` of pairs, sorted by row.

        Parameters
        ----------
        rows : Rows
            R noised images.
        row, label : int array `[P]`
            The row of each pair, and where in the conditions what it is conditioned on stands.
        conditions : Condition
            Of all labels.
        """

        def batch(start: int, size: int) -> Tensor:
            capacity = batch_capacity(self.denoiser, size)
            stop = min(start + capacity.pairs, int(np.searchsorted(row, row[start] + capacity.rows)))
            return self._batch(rows, row[start:stop], label[start:stop], conditions, capacity)

        return torch.cat(self.batches(batch, len(row)))

    def _batch(
        self, rows: Rows, row: np.ndarray, label: np.ndarray, conditions: Condition, capacity: Capacity
    ) -> Tensor:
        """Errors `[P]` of as many pairs as one batch holds."""
        n_pairs, first = len(row), int(row[0])
        used, row = np.arange(first, row[-1] + 1), row - first
        if self.denoiser.dtype != torch.float64:  # a result must not depend on how many others are in its batch
            by_row = self.denoiser.cost_unit == "row"
            used = np.pad(used, (0, capacity.rows - len(used) if by_row else 0), mode="edge")
            n_more = -n_pairs % PADDED_TO if by_row else capacity.pairs - n_pairs
            row, label = (np.pad(a, (0, n_more), mode="edge") for a in (row, label))
        rows_used, index, labels = (send(torch.from_numpy(a), rows.x_t.device) for a in (used, row, label))
        inputs = rows.x_t[rows_used], rows.t[rows_used], index, take(conditions, labels)
        chosen = first + index  # what pads is summed like the rest: how sums are taken may depend on their number
        if self.objective not in BOUNDS:
            return self._error(rows.noise[chosen], self.denoiser.predict(*inputs))[:n_pairs]
        denoiser = cast(VarianceDenoiser, self.denoiser)
        predicted, log_variance = denoiser.predict_variance(*inputs)
        levels = (v[chosen] for v in (rows.alpha, rows.sigma, *denoiser.previous_levels(rows.t)))
        transition = Transition(rows.x0[chosen], log_variance, *levels)
        return self._error(rows.noise[chosen], predicted, transition)[:n_pairs]


KEPT_LABELS = 1024
"""Labels whose conditions a loop keeps when no image under way asks for them any more."""


class DenoiserEvaluator:
    """Asks the denoiser: encodes each image once, noises rows, and weights the errors of their evaluations.

    Parameters
    ----------
    pair_errors : EvaluationErrors
        Errors of a batch under the objective.
    encoding : Batches
        Batches in which images are encoded.
    plan : TrialPlan
        The trials.
    weight : float array `[len(plan)]`
        Weight of each trial's errors.
    table : ConditionTable
        Conditions of the labels.
    images : sequence or dict
        Images by the numbers of their tasks.
    n_candidates : int
        Length of the longest candidate list.
    max_trials : int
        Trials that an image can be asked for at most.
    """

    def __init__(
        self,
        pair_errors: EvaluationErrors,
        encoding: Batches,
        plan: TrialPlan,
        weight: np.ndarray,
        table: ConditionTable,
        images: Any,
        n_candidates: int,
        max_trials: int,
    ) -> None:
        self.denoiser, self.pair_errors, self.encoding = pair_errors.denoiser, pair_errors, encoding
        self.plan, self.weight, self.table = plan, weight, table
        self.images, self.n_candidates = images, n_candidates
        self.foresight = Foresight(max_trials, n_candidates)
        self.share = 0.0

    @property
    def n_prompts(self) -> int:
        """Prompts of each class."""
        return self.table.n_prompts

    def make_room(self, n_slots: int) -> None:
        """Room for the encoded images of so many slots."""
        self.x0 = torch.zeros(n_slots, *self.denoiser.shape, dtype=self.denoiser.dtype, device=self.denoiser.device)
        self.encoded = np.zeros(n_slots, dtype=bool)
        self.labels = np.zeros((n_slots, self.n_candidates), dtype=int)

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`: learn their conditions."""
        self.encoded[slots] = False
        self.foresight.forget(slots)
        for slot, task in zip(slots, tasks, strict=True):
            if task.condition is not None:
                self._learn(task.candidates, task.condition)
            self.labels[slot, : len(task.candidates)] = self.table.numbers(task.candidates)

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        self.labels[slots] = 0  # any number will do: what was there is asked for no more

    def _learn(self, labels: Sequence[Label], condition: Condition) -> None:
        """Take in the labels of a task; when they have become many, those that no slot holds are forgotten."""
        if len(self.table) > KEPT_LABELS:
            self.labels = self.table.forget(np.unique(self.labels))[self.labels]
        self.table.add(labels, condition)

    def __call__(self, work: Batch) -> Pending:
        """Begin a batch; a function that waits for the weighted errors `[P]` of its evaluations."""
        capacity, self.share = self._capacity(), 0.0
        if self.denoiser.dtype == torch.float64:  # whose batches are not padded
            self.share = capacity.share(work)
            return self._begin(work)
        errors = self.foresight.known(work)
        wanted = np.isnan(errors)
        if not wanted.any():
            return lambda: errors
        filled = self.foresight.filled(work, wanted, capacity)
        self.share = capacity.share(filled)
        wait, n_wanted = self._begin(filled), int(wanted.sum())

        def get() -> np.ndarray:
            found = wait()
            if len(found) > n_wanted:
                self.foresight.keep(filled, found, n_wanted)
            errors[wanted] = found[:n_wanted]
            return errors

        return get

    def _capacity(self) -> Capacity:
        """What fits into one batch of the denoiser; a prompt is a pair there."""
        capacity = batch_capacity(self.denoiser, self.pair_errors.batches.size)
        return replace(capacity, pairs=max(1, capacity.pairs // self.n_prompts))

    @torch.inference_mode()
    def _begin(self, work: Batch) -> Pending:
        """The batch on its way to the device."""
        self._encode(work)
        label = self.labels[work.slot[work.row], work.candidate]
        n = self.n_prompts
        prompt = (label[:, None] * n + np.arange(n)).ravel()
        errors = self.pair_errors(self._noised(work), work.row.repeat(n), prompt, self.table.prompts)
        wait, weight = receive(errors.view(-1, n).mean(dim=1)), self.weight[work.trial[work.row]]
        return lambda: wait().numpy() * weight

    def _encode(self, work: Batch) -> None:
        """Encode the images that are seen for the first time; those that the prior settles never are."""
        new = ~self.encoded[work.slot]
        slots, first = np.unique(work.slot[new], return_index=True)
        if len(slots):
            images = select(self.images, work.image[new][first])
            x0 = self.encoding(lambda start, size: self.denoiser.encode(images[start : start + size]), len(slots))
            self.x0[self._sent(slots)] = torch.cat(x0).to(self.x0)
            self.encoded[slots] = True

    def _noised(self, work: Batch) -> Rows:
        trials, inverse = np.unique(work.trial, return_inverse=True)
        x0 = self.x0[self._sent(work.slot)]
        exact = torch.promote_types(x0.dtype, torch.float32)  # half precision would blur the times
        t = self._sent(self.plan.timesteps(work.trial), exact)
        noise = self._sent(self.plan.noise(trials), exact)[self._sent(inverse)]
        alpha, sigma = self.denoiser.noise_levels(t)
        across = (-1,) + (1,) * (x0.ndim - 1)
        x_t = alpha.view(across) * x0 + sigma.view(across) * noise
        return Rows(t, alpha, sigma, x0, noise, x_t.to(x0.dtype))

    def _sent(self, values: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        return send(torch.from_numpy(values), self.denoiser.device, dtype)
