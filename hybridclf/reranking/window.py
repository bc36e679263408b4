"""Slots of the images under way: what each one is, what it may cost, and its errors so far."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import numpy as np

from .batches import Capacity
from .differences import PairedDifferences
from .evidence import Evidence
from .tasks import LOG_ZERO, Task

if TYPE_CHECKING:
    from .fusion import Fusion

__all__ = ["Window", "evidence_before"]

WINDOW_BYTES = 256 * 2**20
"""Bound on the error tables of the images under way."""

_NO_BOUND = np.iinfo(np.int64).max


class Window:
    """Storage for the images under way: a fixed number of slots, reused as images leave.

    Memory is slots × trials × candidates and does not grow with the number of images. Arrays are indexed by slot.

    Parameters
    ----------
    n_slots, n_trials, n_candidates : int
        Images at a time, trials at most, longest candidate list.

    Attributes
    ----------
    occupied : bool array `[S]`
        Slots that hold an image.
    busy : bool array `[S]`
        Those whose image is in a batch that has no errors yet.
    task : object array `[S]`
        The `Task` of each image.
    image, turn, arrival : int array `[S]`
        Its number, its turn, and how many images came before it.
    budget : int array `[S]`
        Evaluations that it may cost.
    due : int array `[S]`
        Trials after which it is judged again.
    n_trials, evaluations : int array `[S]`
        Trials that are complete, and evaluations so far.
    log_prior, sums : float array `[S, K]`
        Tier 1's log-probabilities (-inf pads short lists), and sums of errors over the complete trials.
    alive : bool array `[S, K]`
        Candidates not dropped yet.
    frozen : float array `[S, K]`
        Posterior that dropped candidates keep.
    errors : float32 array `[S, T, K]`
        Weighted errors; nan where nothing was evaluated.
    """

    def __init__(self, n_slots: int, n_trials: int, n_candidates: int) -> None:
        by_candidate = (n_slots, n_candidates)
        self.occupied = np.zeros(n_slots, dtype=bool)
        self.busy = np.zeros(n_slots, dtype=bool)
        self.task = np.full(n_slots, None)
        self.image = np.zeros(n_slots, dtype=int)
        self.turn = np.zeros(n_slots, dtype=int)
        self.arrival = np.zeros(n_slots, dtype=int)
        self.budget = np.zeros(n_slots, dtype=np.int64)
        self.due = np.zeros(n_slots, dtype=int)
        self.n_trials = np.zeros(n_slots, dtype=int)
        self.evaluations = np.zeros(n_slots, dtype=int)
        self.log_prior = np.full(by_candidate, -np.inf)
        self.alive = np.zeros(by_candidate, dtype=bool)
        self.frozen = np.zeros(by_candidate)
        self.sums = np.zeros(by_candidate)
        self.errors = np.empty((n_slots, n_trials, n_candidates), dtype=np.float32)  # a slot's is cleared on arrival
        self.differences = PairedDifferences(self.errors)
        self.begun = np.zeros(n_slots, dtype=int)  # candidates that have their error in the first incomplete trial
        self.pending = np.zeros(by_candidate)  # those errors
        self.moment = 0  # counts what changes the errors
        self._arrivals = 0
        self._views: WeakSet[Evidence] = WeakSet()

    @classmethod
    def for_batches(cls, capacity: Capacity, n_trials: int, n_candidates: int, ahead: int = 0) -> Self:
        """As many slots as fill batches of this capacity, `ahead` of them at a time, within `WINDOW_BYTES`."""
        n_slots = min(capacity.rows * (1 + ahead), max(1, WINDOW_BYTES // (4 * n_trials * n_candidates)))
        return cls(n_slots, n_trials, n_candidates)

    @property
    def n_slots(self) -> int:
        """Images that can be under way at a time."""
        return len(self.occupied)

    @property
    def idle(self) -> np.ndarray:
        """Slots whose image no batch has, by turn and arrival, int `[m]`."""
        slots = np.flatnonzero(self.occupied & ~self.busy)
        return slots[np.lexsort((self.arrival[slots], self.turn[slots]))]

    def slots_of(self, images: Collection[int]) -> np.ndarray:
        """Slots of these images, as far as they are under way, int `[m]`."""
        return np.flatnonzero(self.occupied & np.isin(self.image, list(images)))

    def admit(self, tasks: Sequence[Task]) -> np.ndarray:
        """Put new images into free slots, and return the slots `[m]`; at most as many as are free."""
        slots = np.flatnonzero(~self.occupied)[: len(tasks)]
        self._release_views(slots)
        self.occupied[slots] = True
        self.task[slots] = tasks
        self.image[slots] = [task.image for task in tasks]
        self.turn[slots] = [task.turn for task in tasks]
        self.arrival[slots] = self._arrivals + np.arange(len(slots))
        self._arrivals += len(slots)
        bounds = (task.max_evaluations for task in tasks)
        self.budget[slots] = [_NO_BOUND if bound is None else min(bound, _NO_BOUND) for bound in bounds]
        self.log_prior[slots] = -np.inf
        for slot, task in zip(slots, tasks, strict=True):
            self.log_prior[slot, : len(task.log_prior)] = np.maximum(task.log_prior, LOG_ZERO)
        self.alive[slots] = np.isfinite(self.log_prior[slots])
        self.frozen[slots] = self.sums[slots] = self.pending[slots] = 0.0
        self.errors[slots] = np.nan
        self.n_trials[slots] = self.begun[slots] = self.evaluations[slots] = 0
        self.differences.forget(slots)
        self.moment += 1
        return slots

    def _release_views(self, slots: np.ndarray) -> None:
        """Let evidence of the images that were in these slots copy its errors before they are written over."""
        for view in list(self._views):
            if np.isin(view._slots, slots).any():
                view._keep()
                self._views.discard(view)

    def release(self, slots: np.ndarray) -> None:
        """Free the slots `[m]` of images that are done."""
        self.occupied[slots] = False
        self.task[slots] = None

    def record(
        self, slots: np.ndarray, trials: np.ndarray, candidates: np.ndarray, errors: np.ndarray, cost: int = 1
    ) -> None:
        """Note errors `[E]` of (slot, trial, candidate), each an index array `[E]`, trials in order.

        A trial counts once every live candidate has its error; until then its errors are pending. Three candidates,
        batches of two evaluations:

            batch         errors of   begun   n_trials   sums             pending
            (0, A), (0, B)   trial 0       2          0   -                e_A, e_B
            (0, C), (1, A)   trial 0, 1    1          1   trial 0, A B C   e_A of trial 1

        Parameters
        ----------
        slots, trials, candidates : int array `[E]`
            Where each error belongs.
        errors : float array `[E]`
            Weighted errors.
        cost : int
            Denoiser predictions behind each error: the prompts of a class.
        """
        self.moment += 1
        self.errors[slots, trials, candidates] = errors
        np.add.at(self.evaluations, slots, cost)
        # with 3 live candidates, 2 begun and 5 new errors: 7 = 2 whole trials and 1 begun
        now, n_new = np.unique(slots, return_counts=True)
        n_whole, self.begun[now] = np.divmod(self.begun[now] + n_new, self.alive[now].sum(axis=1))
        self.n_trials[now] += n_whole
        ended = now[n_whole > 0]
        self.sums[ended] += self.pending[ended]
        self.pending[ended] = 0.0
        # np.add.at, as a slot may occur several times, which += would count once
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

    def drop(self, slots: np.ndarray, keep: np.ndarray, posterior: np.ndarray) -> None:
        """Drop candidates that are not in keep `[m, K]`; each keeps its posterior `[m, K]` for good."""
        dropped = self.alive[slots] & ~keep
        self.frozen[slots] = np.where(dropped, posterior, self.frozen[slots])
        self.alive[slots] &= keep


def evidence_before(log_prior: np.ndarray, fusion: "Fusion") -> Evidence:
    """The evidence on m images with these log priors `[m, K]` (-inf padded) before their first trial, in no window."""
    n_trials, sums, (m, k) = np.zeros(len(log_prior), dtype=int), np.zeros_like(log_prior), log_prior.shape
    posterior = fusion.posterior(log_prior, sums, n_trials)
    return Evidence(log_prior, np.isfinite(log_prior), n_trials, sums, posterior, _empty(m, k), np.arange(m), 0)


@lru_cache
def _empty(n_slots: int, n_candidates: int) -> Window:
    return Window(n_slots, 0, n_candidates)
