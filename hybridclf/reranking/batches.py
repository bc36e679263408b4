"""The work of one batch: what it may hold, what is in it, and what turns it into errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .tasks import Task

__all__ = ["Batch", "Capacity", "Evaluator", "Pending", "ReplayEvaluator"]

Pending = Callable[[], np.ndarray]
"""Waits for the errors `[P]` of a batch, which a device may still be at, and returns them."""


@dataclass(frozen=True)
class Capacity:
    """The most rows and pairs that one batch holds.

    Attributes
    ----------
    rows, pairs : int
        At least 1 each.
    splits : bool
        Whether a row may begin in one batch and go on in the next, which fills batches where cost is counted in pairs.
        Otherwise one row is always allowed, whatever its pairs.
    """

    rows: int
    pairs: int
    splits: bool = False

    def share(self, work: "Batch") -> float:
        """How full a batch is, in (0, 1]: of rows or of pairs, whichever is fuller."""
        return min(1.0, max(len(work.slot) / self.rows, len(work.row) / self.pairs))

    def fitting(self, alive: np.ndarray, begun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and candidate of each pair that makes it into a batch, both `[P]`, of rows in order.

        Parameters
        ----------
        alive : bool array `[R, K]`
            Candidates of each row, at least one; no more rows than fit.
        begun : int array `[R]`
            How many of them an earlier batch had.
        """
        ends = (alive.sum(axis=1) - begun).cumsum()
        n_rows = max(1, int(np.searchsorted(ends, self.pairs, side="right")) + self.splits)
        row, candidate = np.nonzero(alive[:n_rows])
        left = np.arange(len(row)) - np.searchsorted(row, row) >= begun[row]
        n_pairs = self.pairs if self.splits else len(row)
        return row[left][:n_pairs], candidate[left][:n_pairs]


@dataclass(frozen=True)
class Batch:
    """One batch of R rows and P pairs; pairs are sorted by row, and not all of a row's need be in one batch.

    Attributes
    ----------
    slot, image, trial : int array `[R]`
        Where each row's image is kept, its number, and the position of the trial in the plan's order.
    row, candidate : int array `[P]`
        The row of each pair and the position of its class in the image's candidate list.
    """

    slot: np.ndarray
    image: np.ndarray
    trial: np.ndarray
    row: np.ndarray
    candidate: np.ndarray


class Evaluator(Protocol):
    """What turns work into errors: a denoiser, or a table of errors recorded before."""

    @property
    def n_prompts(self) -> int:
        """Prompts of each class: the evaluations that one error costs."""
        ...

    @property
    def share(self) -> float:
        """How full the last batch was, by what the device was given in it; 0 if all errors were known."""
        ...

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`."""
        ...

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        ...

    def __call__(self, work: Batch) -> Pending:
        """Begin a batch; a function that waits for the weighted errors `[P]` of its pairs.

        Other slots may be admitted to and released meanwhile.
        """
        ...


class ReplayEvaluator:
    """Errors recorded before, played back: for fitting and for comparing allocations at no cost.

    Parameters
    ----------
    errors : float array `[n, T, K]`
        Weighted errors by image, trial and candidate position.
    """

    n_prompts = 1
    share = 0.0

    def __init__(self, errors: np.ndarray) -> None:
        self.errors = errors

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """Nothing to prepare."""

    def release(self, slots: np.ndarray) -> None:
        """Nothing to clear away."""

    def __call__(self, work: Batch) -> Pending:
        """The recorded errors `[P]`, once they are called for."""
        return lambda: self.errors[work.image[work.row], work.trial[work.row], work.candidate]
