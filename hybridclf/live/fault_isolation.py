"""Isolation of failures: an image on which the denoiser raises costs only itself."""

from threading import Lock
from time import monotonic

import numpy as np

from ..errors import InvalidInputError
from ..reranking.batches import Batch, Evaluator, Pending
from ..reranking.tasks import Task

__all__ = ["FAILING", "FailureStreak", "FaultIsolation"]

FAILING = 5
"""Failures in a row after which the device, not the images, counts as broken."""


class FailureStreak:
    """Count of failures since the last success, for use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._in_a_row = 0
        self._began = 0.0

    def note(self, failed: bool) -> None:
        """Take note of a failure or a success."""
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if failed else 0
            if self._in_a_row == FAILING:
                self._began = monotonic()

    @property
    def seconds(self) -> float | None:
        """Seconds since `FAILING` failures in a row; None unless there were so many."""
        with self._lock:
            return monotonic() - self._began if self._in_a_row >= FAILING else None


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
    streak : FailureStreak
        Batches lost whole, as on a broken device.
    """

    def __init__(self, evaluate: Evaluator) -> None:
        self.evaluate = evaluate
        self.failures: dict[int, Exception] = {}
        self.streak = FailureStreak()

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
        if not all(isinstance(failure, InvalidInputError) for failure in failures):  # bad images do not count
            self.streak.note(failed=None not in failures)
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
