"""Paired differences of errors: their mean and variance over the trials, brought up to date trial by trial."""

import numpy as np

__all__ = ["PairedDifferences"]


class PairedDifferences:
    """Mean and variance of each candidate's errors minus those of a reference, by slot.

    They are brought up to date trial by trial (Welford's algorithm), so that a test after every trial reads an error
    once; a slot starts over when its reference changes.

    Parameters
    ----------
    errors : float32 array `[n_slots, n_trials, n_candidates]`
        The table that is being filled.
    """

    def __init__(self, errors: np.ndarray) -> None:
        n_slots, _, n_candidates = errors.shape
        self.errors = errors
        self.reference = np.full(n_slots, -1)
        self.n_trials = np.zeros(n_slots, dtype=int)
        self.mean = np.zeros((n_slots, n_candidates))
        self.squares = np.zeros((n_slots, n_candidates))

    def forget(self, slots: np.ndarray) -> None:
        """Forget the images that were in these slots `[m]`."""
        self.reference[slots] = -1

    def __call__(self, slots: np.ndarray, reference: np.ndarray, n_trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance `[m, K]` over the first `n_trials` `[m]`, against the candidates `reference` `[m]`."""
        # differences from another reference say nothing about this one: all of the slot's trials are read again
        changed = slots[self.reference[slots] != reference]
        self.mean[changed] = self.squares[changed] = 0.0
        self.n_trials[changed] = 0
        self.reference[slots] = reference
        # most slots are one trial behind; those that started over catch up
        while len(behind := slots[self.n_trials[slots] < n_trials]):
            self._add(behind)
        return self.mean[slots], self.squares[slots] / np.maximum(n_trials - 1, 1)[:, None]

    def _add(self, slots: np.ndarray) -> None:
        """Take in one more trial of each of these slots.

        Welford's algorithm: with a mean of 2 over three trials, a fourth difference of 6 is a surprise of 4, moves the
        mean to 3 and adds 4 · (6 - 3) to the sum of squares.
        """
        errors = self.errors[slots, self.n_trials[slots]].astype(float)
        difference = errors - np.take_along_axis(errors, self.reference[slots, None], axis=1)
        self.n_trials[slots] += 1
        surprise = difference - self.mean[slots]
        self.mean[slots] += surprise / self.n_trials[slots, None]
        # the second factor is taken from the new mean: no sum of large squares is ever subtracted from another
        self.squares[slots] += surprise * (difference - self.mean[slots])
