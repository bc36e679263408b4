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

    @property
    def share(self) -> float:
        """How full the last batch was, by what the device was given in it."""
        return self.evaluate.share

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """New images were put into these slots `[m]`."""
        self.evaluate.admit(slots, tasks)

    def release(self, slots: np.ndarray) -> None:
        """The images in these slots `[m]` have left."""
        self.evaluate.release(slots)

    def __call__(self, work: Batch) -> Pending:
        """Errors `[P]` of the batch's pairs, already there; nan where evaluating them raised."""
        errors = self._errors(work)
        failures = [self.failures.get(image) for image in set(work.image.tolist())]
        if None in failures:
            self.lost_in_a_row = 0
        elif not all(isinstance(failure, InvalidInputError) for failure in failures):  # images that are none
            self.lost_in_a_row += 1
        return lambda: errors

    def _errors(self, work: Batch) -> np.ndarray:
        try:
            return self.evaluate(work)()
        except Exception as error:
            if len(np.unique(work.slot)) == 1:
                return self._failed(work, error)
        return np.concatenate([self._errors(part) for part in _by_image(work)])

    def _failed(self, work: Batch, error: Exception) -> np.ndarray:
        self.failures[int(work.image[0])] = error
        return np.full(len(work.row), np.nan)


def _by_image(work: Batch) -> list[Batch]:
    """The batch in parts of one image each, in order: rows of an image are neighbours."""
    ends = np.flatnonzero(np.diff(work.slot)) + 1
    rows = np.split(np.arange(len(work.slot)), ends)
    pairs = np.split(np.arange(len(work.row)), np.searchsorted(work.row, ends))
    return [
        Batch(work.slot[r], work.image[r], work.trial[r], work.row[p] - r[0], work.candidate[p])
        for r, p in zip(rows, pairs, strict=True)
    ]
