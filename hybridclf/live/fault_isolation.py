"""An evaluator in whose batches an image that breaks it harms no other."""

import numpy as np

from ..errors import InvalidInputError
from ..reranking.batches import Batch, Evaluator, Pending
from ..reranking.tasks import Task

__all__ = ["FAILING", "FaultIsolation"]

FAILING = 5
"""Batches lost in a row after which it is no longer the images' fault."""


class FaultIsolation:
    """An evaluator whose exceptions cost only the images that cause them: their errors are nan.

    A batch that raises is evaluated again image by image, which tells who it was.

    Parameters
    ----------
    evaluate : Evaluator
        What turns work into errors.

    Attributes
    ----------
    failures : dict of int to Exception
        What each such image raised, by its number; to be emptied by who reads it.
    lost_in_a_row : int
        Batches since the last one of which at least one image was evaluated.
    """

    def __init__(self, evaluate: Evaluator) -> None:
        self.evaluate = evaluate
        self.failures: dict[int, Exception] = {}
        self.lost_in_a_row = 0

    @property
    def failing(self) -> bool:
        """Whether batch after batch is lost whole, as on a device that is broken for good."""
        return self.lost_in_a_row >= FAILING

    @property
    def n_prompts(self) -> int:
        """Prompts of each class."""
        return self.evaluate.n_prompts

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`."""
        self.evaluate.admit(slots, tasks)

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        self.evaluate.release(slots)

    def __call__(self, batch: Batch) -> Pending:
        """Errors `[P]` of the batch's pairs, already there; nan where evaluating them raised."""
        errors = self._errors(batch)
        failures = [self.failures.get(image) for image in set(batch.image.tolist())]
        if None in failures:
            self.lost_in_a_row = 0
        elif not all(isinstance(failure, InvalidInputError) for failure in failures):  # images that are none
            self.lost_in_a_row += 1
        return lambda: errors

    def _errors(self, batch: Batch) -> np.ndarray:
        try:
            return self.evaluate(batch)()
        except Exception as error:
            if len(np.unique(batch.slot)) == 1:
                return self._failed(batch, error)
        return np.concatenate([self._errors(part) for part in _by_image(batch)])

    def _failed(self, batch: Batch, error: Exception) -> np.ndarray:
        self.failures[int(batch.image[0])] = error
        return np.full(len(batch.row), np.nan)


def _by_image(batch: Batch) -> list[Batch]:
    """The batch in parts of one image each, in order: rows of an image are neighbours."""
    ends = np.flatnonzero(np.diff(batch.slot)) + 1
    rows = np.split(np.arange(len(batch.slot)), ends)
    pairs = np.split(np.arange(len(batch.row)), np.searchsorted(batch.row, ends))
    return [
        Batch(batch.slot[r], batch.image[r], batch.trial[r], batch.row[p] - r[0], batch.candidate[p])
        for r, p in zip(rows, pairs, strict=True)
    ]
