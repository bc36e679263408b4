"""Slots of the images under way: their errors so far, and the differences between candidates."""

from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from .differences import PairedDifferences
from .evidence import Evidence

if TYPE_CHECKING:
    from .fusion import Fusion

__all__ = ["Window", "evidence_before"]


class Window:
    """Storage for the images under way: a fixed number of slots, reused as images leave.

    Memory is slots × trials × candidates and does not grow with the number of images.

    Parameters
    ----------
    n_slots, n_trials, n_candidates : int
        Images at a time, trials at most, longest candidate list.
    """

    def __init__(self, n_slots: int, n_trials: int, n_candidates: int) -> None:
        by_candidate = (n_slots, n_candidates)
        self.occupied = np.zeros(n_slots, dtype=bool)
        self.log_prior = np.full(by_candidate, -np.inf)
        self.alive = np.zeros(by_candidate, dtype=bool)
        self.frozen = np.zeros(by_candidate)
        self.sums = np.zeros(by_candidate)
        self.errors = np.empty((n_slots, n_trials, n_candidates), dtype=np.float32)  # a slot's is cleared on arrival
        self.differences = PairedDifferences(self.errors)
        self.n_trials = np.zeros(n_slots, dtype=int)
        self.begun = np.zeros(n_slots, dtype=int)  # candidates that have their error in the trial after these
        self.pending = np.zeros(by_candidate)  # those errors
        self.evaluations = np.zeros(n_slots, dtype=int)
        self.moment = 0  # counts what changes the errors
        self._views: WeakSet[Evidence] = WeakSet()

    def admit(self, slots: np.ndarray, log_prior: np.ndarray) -> None:
        """Put new images with these log priors `[m, K]` (-inf padded) into free slots `[m]`."""
        for view in list(self._views):
            if np.isin(view._slots, slots).any():
                view._keep()
                self._views.discard(view)
        self.moment += 1
        self.occupied[slots] = True
        self.log_prior[slots] = log_prior
        self.alive[slots] = np.isfinite(log_prior)
        self.frozen[slots] = self.sums[slots] = self.pending[slots] = 0.0
        self.errors[slots] = np.nan
        self.differences.forget(slots)
        self.n_trials[slots] = self.begun[slots] = self.evaluations[slots] = 0

    def record(
        self, slots: np.ndarray, trials: np.ndarray, candidates: np.ndarray, errors: np.ndarray, cost: int = 1
    ) -> None:
        """Note errors `[P]` of (slot, trial, candidate), each index array `[P]`, trials in order, at a cost each.

        A trial counts once it has the errors of all candidates that are alive.
        """
        self.moment += 1
        self.errors[slots, trials, candidates] = errors
        np.add.at(self.evaluations, slots, cost)
        now, n_new = np.unique(slots, return_counts=True)
        n_whole, self.begun[now] = np.divmod(self.begun[now] + n_new, self.alive[now].sum(axis=1))
        self.n_trials[now] += n_whole
        ended = now[n_whole > 0]
        self.sums[ended] += self.pending[ended]
        self.pending[ended] = 0.0
        counts = trials < self.n_trials[slots]
        for sums, which in ((self.sums, counts), (self.pending, ~counts)):
            np.add.at(sums, (slots[which], candidates[which]), errors[which].astype(float))

    def view(self, slots: np.ndarray, fusion: "Fusion") -> Evidence:
        """The evidence on the images in these slots, with the posterior that fusion makes of it."""
        log_prior, alive, n_trials, sums = (a[slots] for a in (self.log_prior, self.alive, self.n_trials, self.sums))
        posterior = fusion.posterior(log_prior, sums, n_trials, alive, self.frozen[slots])
        evidence = Evidence(log_prior, alive, n_trials, sums, posterior, self, slots, self.moment)
        self._views.add(evidence)
        return evidence

    def drop(self, slots: np.ndarray, keep: np.ndarray, shares: np.ndarray) -> None:
        """Drop candidates that are not in keep `[m, K]`; each keeps its share `[m, K]` for good."""
        dropped = self.alive[slots] & ~keep
        self.frozen[slots] = np.where(dropped, shares, self.frozen[slots])
        self.alive[slots] &= keep


def evidence_before(log_prior: np.ndarray, fusion: "Fusion") -> Evidence:
    """The evidence on m images with these log priors `[m, K]` (-inf padded) before their first trial, in no window."""
    n_trials, sums, (m, k) = np.zeros(len(log_prior), dtype=int), np.zeros_like(log_prior), log_prior.shape
    posterior = fusion.posterior(log_prior, sums, n_trials)
    return Evidence(log_prior, np.isfinite(log_prior), n_trials, sums, posterior, _empty(m, k), np.arange(m), 0)


@lru_cache
def _empty(n_slots: int, n_candidates: int) -> Window:
    return Window(n_slots, 0, n_candidates)
