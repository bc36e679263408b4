"""Errors of (row, class) pairs, predicted by a denoiser in batches of fixed shape."""

from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from .devices import Batches, send
from .objectives import BOUNDS, Transition, check_objective, resolve_objective
from .ports import Condition, Denoiser, VarianceDenoiser, take
from .reranking.batches import Capacity

__all__ = ["PairErrors", "Rows", "batch_capacity"]

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


class PairErrors:
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
