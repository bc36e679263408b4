"""One batch: its capacity, its content, and the evaluator that computes its errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .tasks import Task

__all__ = ["Batch", "Capacity", "Evaluator", "Pending", "ReplayEvaluator"]

Pending = Callable[[], np.ndarray]
"""Waits for the errors `[E]` of a batch, which a device may still be computing, and returns them."""


@dataclass(frozen=True)
class Capacity:
    """The most rows and evaluations that one batch holds.

    Attributes
    ----------
    rows, evaluations : int
        At least 1 each.
    splits : bool
        Whether a row may begin in one batch and go on in the next, which fills batches where cost is counted in
        evaluations. Otherwise one row is always allowed, whatever its evaluations.
    """

    rows: int
    evaluations: int
    splits: bool = False

    def fullness(self, batch: "Batch") -> float:
        """Filled share of a batch, in (0, 1]: of its rows or of its evaluations, the larger one."""
        return min(1.0, max(len(batch.slot) / self.rows, len(batch.row) / self.evaluations))

    def select(self, alive: np.ndarray, begun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and candidate of each evaluation that goes into a batch, both `[E]`, rows in order.

        For 5 evaluations, of three rows of which the first has begun (x: had by an earlier batch; .: dropped):

            alive      A B C    A . C    A B .
            begun      x
            selected     B C    A   C    A         if rows may be split, else the last row waits

        Parameters
        ----------
        alive : bool array `[R, K]`
            Candidates of each row, at least one; no more rows than fit.
        begun : int array `[R]`
            Number of them that an earlier batch had.
        """
        ends = (alive.sum(axis=1) - begun).cumsum()
        n_rows = max(1, int(np.searchsorted(ends, self.evaluations, side="right")) + self.splits)
        row, candidate = np.nonzero(alive[:n_rows])
        nth = np.arange(len(row)) - np.searchsorted(row, row)  # 0, 1, … within each row
        left = nth >= begun[row]
        limit = self.evaluations if self.splits else len(row)
        return row[left][:limit], candidate[left][:limit]


@dataclass(frozen=True)
class Batch:
    """One batch of R rows and E evaluations, sorted by row; a row's evaluations may be split between two batches.

    Attributes
    ----------
    slot, image, trial : int array `[R]`
        Slot of each row's image, its number, and the position of the trial in the plan's order.
    row, candidate : int array `[E]`
        Row of each evaluation, and the position of its class in the image's candidate list.
    """

    slot: np.ndarray
    image: np.ndarray
    trial: np.ndarray
    row: np.ndarray
    candidate: np.ndarray


class Evaluator(Protocol):
    """Computes the errors of a batch: with a denoiser, or from a table of errors recorded before."""

    @property
    def n_prompts(self) -> int:
        """Prompts of each class: the evaluations that one error costs."""
        ...

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`."""
        ...

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        ...

    def __call__(self, batch: Batch) -> Pending:
        """Begin a batch, and return a function that waits for its weighted errors `[E]`.

        Other slots may be admitted to and released meanwhile.
        """
        ...


class ReplayEvaluator:
    """Plays back errors recorded before: for fitting, and for comparing allocations at no cost.

    Parameters
    ----------
    errors : float array `[n, T, K]`
        Weighted errors by image, trial and candidate position.
    """

    n_prompts = 1

    def __init__(self, errors: np.ndarray) -> None:
        self.errors = errors

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """Nothing to prepare."""

    def release(self, slots: np.ndarray) -> None:
        """Nothing to clear away."""

    def __call__(self, batch: Batch) -> Pending:
        """A function that returns the recorded errors `[E]`."""
        return lambda: self.errors[batch.image[batch.row], batch.trial[batch.row], batch.candidate]
