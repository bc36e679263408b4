"""Errors of (row, class) pairs, predicted by a denoiser in batches of fixed shape."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .devices import Batches
from .loop import Capacity
from .objectives import Objective
from .ports import Condition, Denoiser, take

__all__ = ["PairErrors", "Rows", "batch_capacity"]

PAIRS_PER_ROW = 16
"""Pairs that a batch counted in rows may hold, for each of its rows."""


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
    return Capacity(batch_size, batch_size * (PAIRS_PER_ROW if denoiser.cost_unit == "row" else 1))


class PairErrors:
    """Errors of pairs under one objective.

    Parameters
    ----------
    denoiser : Denoiser
        What predicts.
    objective : Objective
        The error between noise and predicted noise.
    batches : Batches
        Their size in the denoiser's `cost_unit`.
    """

    def __init__(self, denoiser: Denoiser, objective: Objective, batches: Batches) -> None:
        self.denoiser, self.objective, self.batches = denoiser, objective, batches

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
            if self.denoiser.cost_unit == "row":
                used = np.pad(used, (0, capacity.rows - len(used)), mode="edge")
            else:
                row, label = (np.pad(a, (0, capacity.pairs - n_pairs), mode="edge") for a in (row, label))
        index = torch.from_numpy(row).to(rows.x_t.device)
        condition = take(conditions, torch.from_numpy(label))
        predicted = self.denoiser.predict(rows.x_t[used], rows.t[used], index, condition)
        return self.objective(rows.noise[first + index[:n_pairs]], predicted[:n_pairs])
