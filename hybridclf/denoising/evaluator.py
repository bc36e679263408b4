"""The evaluator that asks a denoiser: encodes images, noises rows, and computes the errors of batches."""

from collections.abc import Sequence
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
from .objectives import BOUNDS, Transition, check_objective, resolve_objective

__all__ = ["DenoiserEvaluator", "EvaluationErrors", "Rows", "batch_capacity", "noised"]

EVALUATIONS_PER_ROW = 16
"""Evaluations that a batch counted in rows may hold, for each of its rows."""


class Rows(NamedTuple):
    """R noised images x_t = α·x0 + σ·ε at times t: `[R]` and `[R, *shape]`."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    noise: Tensor
    x_t: Tensor


def noised(denoiser: Denoiser, plan: TrialPlan, x0: Tensor, trial: np.ndarray) -> Rows:
    """Noise encoded images.

    Parameters
    ----------
    denoiser : Denoiser
        Its noise levels are used.
    plan : TrialPlan
        The trials.
    x0 : Tensor `[R, *shape]`
        Encoded images, repeated where several trials noise the same one.
    trial : int array `[R]`
        Position of each row's trial in the plan's order.
    """
    exact = torch.promote_types(x0.dtype, torch.float32)  # half precision would blur the times
    different, inverse = np.unique(trial, return_inverse=True)  # rows of one trial share its noise
    t = send(torch.from_numpy(plan.timesteps(trial)), x0.device, exact)
    noise = send(torch.from_numpy(plan.noise(different)), x0.device, exact)
    noise = noise[send(torch.from_numpy(inverse), x0.device)]
    alpha, sigma = denoiser.noise_levels(t)
    across = (-1,) + (1,) * (x0.ndim - 1)
    x_t = alpha.view(across) * x0 + sigma.view(across) * noise
    return Rows(t, alpha, sigma, x0, noise, x_t.to(x0.dtype))


def batch_capacity(denoiser: Denoiser, batch_size: int) -> Capacity:
    """Rows and evaluations of a batch of that size, which is in the denoiser's `cost_unit`."""
    by_row = denoiser.cost_unit == "row"
    return Capacity(batch_size, batch_size * (EVALUATIONS_PER_ROW if by_row else 1), splits=not by_row)


def _padded(indices: np.ndarray, size: int, finely: bool) -> np.ndarray:
    """Indices `[n]`, the last one repeated up to the next power of two, but at most `size` if n is not above it.

    Batches then have a dozen shapes instead of hundreds: kernels are chosen, and graphs recorded, once for each.
    Finely, the length is a multiple of an eighth of that power: 17 become 20 and not 32. A CPU computes every row of
    padding.
    """
    n = len(indices)
    power = 1 << (n - 1).bit_length()
    step = max(1, power // 8) if finely else power
    length = max(n, min(size, -(-n // step) * step))
    return np.pad(indices, (0, length - n), mode="edge")


class EvaluationErrors:
    """Errors of evaluations under one objective.

    Parameters
    ----------
    denoiser : Denoiser
        The model that predicts the noise.
    objective : str
        Name of the error between noise and predicted noise.
    batch_size : int
        Rows or evaluations in one batch, by the denoiser's `cost_unit`.

    Raises
    ------
    InvalidInputError
        For an unknown objective, or one that needs a variance which the denoiser has not learned.
    """

    def __init__(self, denoiser: Denoiser, objective: str, batch_size: int) -> None:
        self.denoiser, self.objective, self.batches = denoiser, objective, Batches(batch_size)
        self._error = resolve_objective(objective)
        check_objective(objective, denoiser)

    def __call__(self, rows: Rows, row: np.ndarray, label: np.ndarray, conditions: Condition) -> Tensor:
        """Errors `[E]` of evaluations, sorted by row.

        Parameters
        ----------
        rows : Rows
            R noised images.
        row, label : int array `[E]`
            The row of each evaluation, and the position of its label in the conditions.
        conditions : Condition
            Of all labels.
        """

        def batch(start: int, size: int) -> Tensor:
            capacity = batch_capacity(self.denoiser, size)
            stop = min(start + capacity.evaluations, int(np.searchsorted(row, row[start] + capacity.rows)))
            return self._batch(rows, row[start:stop], label[start:stop], conditions, capacity)

        return torch.cat(self.batches(batch, len(row)))

    def _batch(
        self, rows: Rows, row: np.ndarray, label: np.ndarray, conditions: Condition, capacity: Capacity
    ) -> Tensor:
        """Errors `[E]` of as many evaluations as one batch holds."""
        n, first = len(row), int(row[0])
        used, row = np.arange(first, row[-1] + 1), row - first
        if self.denoiser.dtype != torch.float64:  # small models, to which padding costs more than it brings
            finely, most = self.denoiser.device.type == "cpu", capacity.evaluations
            used = _padded(used, capacity.rows, finely)
            row, label = (_padded(indices, most, finely) for indices in (row, label))
        rows_used, index, labels = (send(torch.from_numpy(a), rows.x_t.device) for a in (used, row, label))
        inputs = rows.x_t[rows_used], rows.t[rows_used], index, take(conditions, labels)
        chosen = first + index
        if self.objective not in BOUNDS:
            return self._error(rows.noise[chosen], self.denoiser.predict(*inputs))[:n]
        denoiser = cast(VarianceDenoiser, self.denoiser)
        predicted, log_variance = denoiser.predict_variance(*inputs)
        levels = (v[chosen] for v in (rows.alpha, rows.sigma, *denoiser.previous_levels(rows.t)))
        transition = Transition(rows.x0[chosen], log_variance, *levels)
        return self._error(rows.noise[chosen], predicted, transition)[:n]


KEPT_LABELS = 1024
"""Labels whose conditions a loop keeps when no image under way asks for them any more."""


class DenoiserEvaluator:
    """Asks the denoiser: encodes each image once, noises rows, and weights the errors of their evaluations.

    Parameters
    ----------
    evaluation_errors : EvaluationErrors
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
    n_slots, n_candidates : int
        Images under way at a time, and length of the longest candidate list.
    """

    def __init__(
        self,
        evaluation_errors: EvaluationErrors,
        encoding: Batches,
        plan: TrialPlan,
        weight: np.ndarray,
        table: ConditionTable,
        images: Any,
        n_slots: int,
        n_candidates: int,
    ) -> None:
        self.denoiser = denoiser = evaluation_errors.denoiser
        self.evaluation_errors, self.encoding = evaluation_errors, encoding
        self.plan, self.weight, self.table, self.images = plan, weight, table, images
        self.x0 = torch.zeros(n_slots, *denoiser.shape, dtype=denoiser.dtype, device=denoiser.device)
        self.encoded = np.zeros(n_slots, dtype=bool)
        self.labels = np.zeros((n_slots, n_candidates), dtype=int)

    @property
    def n_prompts(self) -> int:
        """Prompts of each class."""
        return self.table.n_prompts

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`: take in their conditions."""
        self.encoded[slots] = False
        for slot, task in zip(slots, tasks, strict=True):
            if task.condition is not None:
                self._learn(task.candidates, task.condition)
            self.labels[slot, : len(task.candidates)] = self.table.numbers(task.candidates)

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        self.labels[slots] = 0  # any number will do: what was there is asked for no more

    def _learn(self, labels: Sequence[Label], condition: Condition) -> None:
        """Take in the labels of a task; when they have become many, labels of no slot are forgotten."""
        if len(self.table) > KEPT_LABELS:
            self.labels = self.table.forget(np.unique(self.labels))[self.labels]
        self.table.add(labels, condition)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Pending:
        """Begin a batch, and return a function that waits for its weighted errors `[E]`."""
        self._encode(batch)
        label = self.labels[batch.slot[batch.row], batch.candidate]
        n = self.n_prompts
        prompt = (label[:, None] * n + np.arange(n)).ravel()
        rows = noised(self.denoiser, self.plan, self.x0[self._sent(batch.slot)], batch.trial)
        errors = self.evaluation_errors(rows, batch.row.repeat(n), prompt, self.table.prompts)
        wait, weight = receive(errors.view(-1, n).mean(dim=1)), self.weight[batch.trial[batch.row]]
        return lambda: wait().numpy() * weight

    def _encode(self, batch: Batch) -> None:
        """Encode the images that are seen for the first time; an image that the prior settles never is."""
        new = ~self.encoded[batch.slot]
        slots, first = np.unique(batch.slot[new], return_index=True)
        if len(slots):
            images = select(self.images, batch.image[new][first])
            x0 = self.encoding(lambda start, size: self.denoiser.encode(images[start : start + size]), len(slots))
            self.x0[self._sent(slots)] = torch.cat(x0).to(self.x0)
            self.encoded[slots] = True

    def _sent(self, values: np.ndarray) -> Tensor:
        return send(torch.from_numpy(values), self.denoiser.device)
