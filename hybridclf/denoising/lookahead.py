"""Trials that fill up a batch which would be padded: evaluated before the allocation asks for them."""

import numpy as np

from ..reranking.batches import Batch, Capacity

__all__ = ["Foresight"]

DEPTH = 32
"""Further trials of an image that one batch may bring."""


class Foresight:
    """Errors of trials to come.

    A single image that is judged after every trial would leave most of a padded batch empty, batch after batch. Filling
    it up costs what padding would, and light heads where a denoiser is late-conditioned. What was evaluated early is
    the same as what would have been later: errors do not depend on their batch.

    Parameters
    ----------
    max_trials : int
        Trials that an image can be asked for at most.
    n_candidates : int
        Length of the longest candidate list.
    """

    def __init__(self, max_trials: int, n_candidates: int) -> None:
        self.max_trials, self.n_candidates = max_trials, n_candidates
        self._keys = np.empty(0, dtype=np.int64)  # ascending
        self._errors = np.empty(0)

    def known(self, work: Batch) -> np.ndarray:
        """Errors `[P]` of a batch's pairs, nan where they are yet to be evaluated."""
        if not len(self._keys):
            return np.full(len(work.row), np.nan)
        keys = self._key(work)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._errors[at], np.nan)

    def filled(self, work: Batch, wanted: np.ndarray, capacity: Capacity) -> Batch:
        """Those pairs of a batch that are wanted, bool `[P]`, and after them further trials of the same images."""
        rows, row = np.unique(work.row[wanted], return_inverse=True)
        slot, image, trial, candidate = work.slot[rows], work.image[rows], work.trial[rows], work.candidate[wanted]
        n_pairs = np.bincount(row)
        last = np.flatnonzero(np.append(slot[1:] != slot[:-1], True))  # rows of an image are neighbours
        room = min((capacity.rows - len(rows)) // len(last), (capacity.pairs - len(row)) // n_pairs[last].sum(), DEPTH)
        n_more = np.clip(self.max_trials - 1 - trial[last], 0, max(room, 0))
        source = np.repeat(last, n_more)  # the row that each further one is like
        begins = np.cumsum(n_pairs) - n_pairs
        pairs = np.repeat(source, n_pairs[source])
        return Batch(
            np.append(slot, slot[source]),
            np.append(image, image[source]),
            np.append(trial, trial[source] + 1 + _count(n_more)),
            np.append(row, len(rows) + np.repeat(np.arange(len(source)), n_pairs[source])),
            np.append(candidate, candidate[begins[pairs] + _count(n_pairs[source])]),
        )

    def keep(self, work: Batch, errors: np.ndarray, n_asked: int) -> None:
        """Keep the errors `[P]` of a batch beyond those that were asked for; earlier ones of its images are used up."""
        self.forget(np.unique(work.slot[work.row[n_asked:]]))
        keys = np.append(self._keys, self._key(work)[n_asked:])
        order = np.argsort(keys)
        self._keys, self._errors = keys[order], np.append(self._errors, errors[n_asked:])[order]

    def forget(self, slots: np.ndarray) -> None:
        """Let go what is known of the images in these slots `[m]`."""
        if not len(self._keys):
            return
        stays = ~np.isin(self._keys // (self.max_trials * self.n_candidates), slots)
        self._keys, self._errors = self._keys[stays], self._errors[stays]

    def _key(self, work: Batch) -> np.ndarray:
        """A number `[P]` for each (slot, trial, candidate)."""
        row = work.slot * self.max_trials + work.trial
        return row[work.row] * self.n_candidates + work.candidate


def _count(sizes: np.ndarray) -> np.ndarray:
    """0, 1, … size - 1 of each size in turn."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
