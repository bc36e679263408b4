"""Isolation of failures: an image on which the denoiser raises costs only itself."""

import numpy as np

from ..errors import InvalidInputError
from ..reranking.batches import Batch, Evaluator, Pending
from ..reranking.tasks import Task

__all__ = ["FAILING", "FaultIsolation"]

FAILING = 5
"""Failed batches in a row after which the device, not the images, counts as broken."""


class FaultIsolation:
    """Evaluator that isolates failures: a batch that raises is run again image by image, and the culprit gets nan.

    Parameters
    ----------
    evaluate : Evaluator
        Evaluator that computes the errors of a batch.

    Attributes
    ----------
    failures : dict of int to Exception
        Exceptions by the image's number; the reader removes them.
    lost_in_a_row : int
        Batches since the last one with an image that was evaluated.
    """

    def __init__(self, evaluate: Evaluator) -> None:
        self.evaluate = evaluate
        self.failures: dict[int, Exception] = {}
        self.lost_in_a_row = 0

    @property
    def failing(self) -> bool:
        """True if batch after batch fails whole, as on a broken device."""
        return self.lost_in_a_row >= FAILING

    @property
    def n_prompts(self) -> int:
        """Number of prompts per class."""
        return self.evaluate.n_prompts

    def admit(self, slots: np.ndarray, tasks: list[Task]) -> None:
        """Take note of new images in slots `[m]`."""
        self.evaluate.admit(slots, tasks)

    def release(self, slots: np.ndarray) -> None:
        """Take note that the images in slots `[m]` have left."""
        self.evaluate.release(slots)

    def __call__(self, batch: Batch) -> Pending:
        """Compute the errors `[E]` of a batch's evaluations at once; nan for images that raised."""
        errors = self._errors(batch)
        failures = [self.failures.get(image) for image in set(batch.image.tolist())]
        if None in failures:
            self.lost_in_a_row = 0
        elif not all(isinstance(failure, InvalidInputError) for failure in failures):  # bad images do not count
            self.lost_in_a_row += 1
        return lambda: errors

    def _errors(self, batch: Batch) -> np.ndarray:
        try:
            return self.evaluate(batch)()
        except Exception as error:
            if len(np.unique(batch.slot)) == 1:
                self.failures[int(batch.image[0])] = error
                return np.full(len(batch.row), np.nan)
        return np.concatenate([self._errors(single) for single in _by_image(batch)])


def _by_image(batch: Batch) -> list[Batch]:
    """Split a batch into one per image, in order.

    Rows of an image are neighbours. Slots (4, 4, 7) end images at row 2; evaluations of rows (0, 0, 1, 2, 2) are then
    split at position 3, and the rows of the second image are numbered from 0 again.
    """
    ends = np.flatnonzero(np.diff(batch.slot)) + 1
    rows = np.split(np.arange(len(batch.slot)), ends)
    evaluations = np.split(np.arange(len(batch.row)), np.searchsorted(batch.row, ends))
    return [
        Batch(batch.slot[r], batch.image[r], batch.trial[r], batch.row[e] - r[0], batch.candidate[e])
        for r, e in zip(rows, evaluations, strict=True)
    ]
