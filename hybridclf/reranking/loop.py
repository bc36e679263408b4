"""The one reranking loop: continuous batching of images, candidates and trials.

Images come in with their candidates, rows of all images under way fill one batch, and finished images
leave at once and make room. The loop knows neither models nor images: an `Evaluator` turns the work of
a batch into errors, an allocation judges, a fusion makes posteriors.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy.special import softmax

from .allocation import Allocation
from .batches import Batch, Capacity, Evaluator, Pending
from .evidence import Evidence, RerankResult
from .fusion import Fusion
from .tasks import LOG_ZERO, Task, results_of
from .window import Window, evidence_before

__all__ = ["Loop", "Step"]

WINDOW_BYTES = 256 * 2**20
"""Bound on the error tables of the images under way."""

ARRIVALS = 256
"""Images that are admitted at a time: a device that works by itself need not wait until all places are taken."""

FULL = 0.9
"""How full a batch must be to be begun ahead: what waits for errors of the one before could fill it."""

GIVE_UP_AFTER = 32
"""First images, none of them with a finite error, after which `run` asks for no more."""

_NO_BOUND = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Step:
    """What one turn of the loop did: everything one might watch.

    Attributes
    ----------
    images : int array `[m]`
        Numbers of the images that were judged.
    evidence : Evidence
        What was known of these m images at that moment.
    evaluations : int array `[m]`
        What they had cost so far.
    finished : list of (int, RerankResult)
        Images that are done, by number.
    rows, pairs : int
        Denoiser work of this turn: rows that began in it, and pairs; a pair is an evaluation.
    """

    images: np.ndarray
    evidence: Evidence
    evaluations: np.ndarray
    finished: list[tuple[int, RerankResult]]
    rows: int = 0
    pairs: int = 0


class Loop:
    """Reranks tasks batch by batch; `run` is the generator one can watch.

    A live server drives the parts of `run` itself: `admit`, `fill`, the evaluator, `record`. Between those calls it
    may ask for the `best` answer so far and `evict` images.

    Parameters
    ----------
    allocation : Allocation
        Who gets the next trial, and when to stop.
    fusion : Fusion
        What makes posteriors of evidence.
    evaluate : Evaluator
        What makes errors of work.
    capacity : Capacity
        Size of a batch.
    n_candidates : int
        Length of the longest candidate list to come.
    ahead : int
        Batches that `run` begins, with other images, before it has the errors of the one before: a device that works by
        itself need not wait for the bookkeeping.
    ceilings : float array `[max_trials + 1]`, optional
        Highest usual sum of the best candidate's errors after 0, 1, … trials; an image that is beyond it is novel, and
        done with tier 1's answer. Default: no bound.
    """

    def __init__(
        self,
        allocation: Allocation,
        fusion: Fusion,
        evaluate: Evaluator,
        capacity: Capacity,
        n_candidates: int,
        ahead: int = 0,
        ceilings: np.ndarray | None = None,
    ) -> None:
        self.allocation = allocation
        self.fusion = fusion
        self.evaluate = evaluate
        self.capacity = capacity
        self.ahead = ahead
        n_slots = min(capacity.rows * (1 + ahead), max(1, WINDOW_BYTES // (4 * allocation.max_trials * n_candidates)))
        self._window = Window(n_slots, allocation.max_trials, n_candidates)
        self._tasks = np.full(n_slots, None)
        self._image = np.zeros(n_slots, dtype=int)
        self._busy = np.zeros(n_slots, dtype=bool)  # in a batch whose errors are not there yet
        self._due = np.zeros(n_slots, dtype=int)
        self._budget = np.zeros(n_slots, dtype=np.int64)
        self._arrival = np.zeros(n_slots, dtype=int)
        self._arrivals = 0
        self._ceilings = np.full(allocation.max_trials + 1, np.inf) if ceilings is None else ceilings
        self._failures = 0.0  # images before the first finite error, -inf after it

    @property
    def n_slots(self) -> int:
        """Images that can be under way at a time."""
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many more images can be admitted."""
        return int((~self._window.occupied).sum())

    def run(self, tasks: Iterable[Task]) -> Iterator[Step]:
        """Rerank all tasks, yielding every step; tasks are drawn as room becomes free.

        Where the first images have no finite error at all, tier 1 answers the rest.
        """
        queue, begun = iter(tasks), deque[tuple[Batch, Pending]]()
        while self._failures < GIVE_UP_AFTER:
            if arrivals := list(islice(queue, min(self.free, ARRIVALS))):
                yield self.admit(arrivals)
            if work := self._next(len(begun), more=bool(arrivals)):
                self._busy[work.slot] = True
                begun.append((work, self.evaluate(work)))
            elif begun and not arrivals:
                work, errors = begun.popleft()
                yield self.record(work, errors())
            elif not arrivals:
                return
        yield from self._give_up(queue)

    def _give_up(self, queue: Iterator[Task]) -> Iterator[Step]:
        """Let tier 1 answer the images under way, and those of the queue."""
        while True:
            yield self._judge(np.arange(0), {"fallback": np.flatnonzero(self._window.occupied)})
            if not (arrivals := list(islice(queue, self.free))):
                return
            yield self.admit(arrivals)

    def admit(self, tasks: list[Task]) -> Step:
        """Take in at most `free` images; those that need no tier 2 are finished at once.

        Their prior settles them, or the fusion does not ask about their class.
        """
        slots = np.flatnonzero(~self._window.occupied)[: len(tasks)]
        log_prior = np.full((len(tasks), self._window.log_prior.shape[1]), -np.inf)
        for i, task in enumerate(tasks):
            log_prior[i, : len(task.log_prior)] = np.maximum(task.log_prior, LOG_ZERO)
        self._tasks[slots] = tasks
        self._image[slots] = [task.image for task in tasks]
        bounds = (task.max_evaluations for task in tasks)
        self._budget[slots] = [_NO_BOUND if bound is None else min(bound, _NO_BOUND) for bound in bounds]
        self._arrival[slots] = self._arrivals + np.arange(len(slots))
        self._arrivals += len(slots)
        self._window.admit(slots, log_prior)
        self.evaluate.admit(slots, tasks)
        asked = np.array([self._asks(task) for task in tasks], dtype=bool)
        novel = np.array([task.novel for task in tasks], dtype=bool)
        return self._judge(slots[asked & ~novel], {"off": slots[~asked], "novel": slots[asked & novel]})

    def _asks(self, task: Task) -> bool:
        """Whether tier 2 is asked where tier 1 puts its first class first."""
        return self.fusion.asks(task.candidates[int(np.argmax(task.log_prior))])

    def _next(self, n_begun: int, more: bool) -> Batch | None:
        """The batch to begin now that so many have: a full one, or what there is unless more images may come."""
        if n_begun > self.ahead or not self._idle.any():
            return None
        work, n_rows = self.fill(), (self._due - self._window.n_trials)[self._idle].sum()
        share = self.capacity.share(work)
        full = share == 1 or n_rows > len(work.slot)
        return work if full or (not more and share >= (FULL if n_begun else 0)) else None

    @property
    def _idle(self) -> np.ndarray:
        """Images under way that no batch has, bool `[n_slots]`."""
        return self._window.occupied & ~self._busy

    def record(self, work: Batch, errors: np.ndarray) -> Step:
        """Note the errors `[P]` of a batch, and judge the images whose trials are in."""
        errors = np.asarray(errors)
        slots, pair_slot = np.unique(work.slot), work.slot[work.row]
        n_rows = len(work.slot) - int(np.count_nonzero(self._window.begun[slots]))  # those that begin in this batch
        self._busy[slots] = False
        self._window.record(pair_slot, work.trial[work.row], work.candidate, errors, self.evaluate.n_prompts)
        finite = np.isfinite(errors)
        broken = np.unique(pair_slot[~finite])
        self._failures = -np.inf if finite.any() else self._failures + len(broken)
        self._window.sums[broken] = 0.0  # tier 1 answers; an infinite sum has no posterior
        due = np.setdiff1d(slots[self._window.n_trials[slots] >= self._due[slots]], broken)
        novel = self._novel(due)
        n_pairs = len(work.row) * self.evaluate.n_prompts
        return self._judge(due[~novel], {"fallback": broken, "novel": due[novel]}, rows=n_rows, pairs=n_pairs)

    def _novel(self, slots: np.ndarray) -> np.ndarray:
        """Tell which of the images in slots `[m]` have errors beyond what is usual under their best candidate."""
        lowest = np.where(self._window.alive[slots], self._window.sums[slots], np.inf).min(axis=1)
        return lowest > self._ceilings[self._window.n_trials[slots]]

    def settled(self, task: Task) -> RerankResult | None:
        """The result of an image that needs no tier 2, else None; for any thread, as it is not admitted."""
        evidence = evidence_before(np.maximum(task.log_prior, LOG_ZERO)[None], self.fusion)
        reason, posterior = "confident", evidence.posterior
        if not self._asks(task):
            reason, posterior = "off", softmax(evidence.log_prior, axis=1)
        elif (self.allocation.survivors(evidence) | evidence.leads).sum() > 1:
            return None
        return results_of([task], posterior, [reason], [0], [evidence.errors[0]])[0]

    def best(self, image: int, stopped_by: str) -> RerankResult:
        """The answer so far for an image under way, which stays under way."""
        slots = np.flatnonzero(self._window.occupied & (self._image == image))
        return self._results(slots, [stopped_by], self._window.view(slots, self.fusion).posterior)[0]

    def evict(self, images: Collection[int]) -> None:
        """Give up the images of these numbers, where they are still under way; none that a batch of `run` has."""
        slots = np.flatnonzero(self._window.occupied & np.isin(self._image, list(images)))
        assert not self._busy[slots].any(), "errors of an image that was evicted would go to the one after it"
        self._free(slots)

    def fill(self) -> Batch:
        """The next batch: rows of the images under way that no batch has, first come first served."""
        window = self._window
        slots = np.flatnonzero(self._idle)
        slots = slots[np.argsort(self._arrival[slots])]
        wanted = np.minimum(self._due[slots] - window.n_trials[slots], self.capacity.rows)
        slot = np.repeat(slots, wanted)[: self.capacity.rows]
        ahead = np.arange(len(slot)) - np.searchsorted(self._arrival[slot], self._arrival[slot])
        begun = np.where(ahead == 0, window.begun[slot], 0)  # pairs of each row that an earlier batch had
        row, candidate = self.capacity.fitting(window.alive[slot], begun)
        n_rows = int(row[-1]) + 1
        trial = window.n_trials[slot] + ahead
        return Batch(slot[:n_rows], self._image[slot[:n_rows]], trial[:n_rows], row, candidate)

    def _judge(
        self, slots: np.ndarray, aside: Mapping[str, np.ndarray] | None = None, rows: int = 0, pairs: int = 0
    ) -> Step:
        """Let the allocation decide on these slots, and release the images that are done.

        Other slots are set aside, by reason: tier 1 answers them.
        """
        window = self._window
        evidence = window.view(slots, self.fusion)
        keep = self.allocation.survivors(evidence) | evidence.leads
        window.drop(slots, keep, _below(evidence, keep))
        alone = (evidence.alive & keep).sum(axis=1) <= 1
        affordable = self._affordable(slots)
        spent = (evidence.n_trials >= self.allocation.max_trials) | (affordable < 1)
        reasons = np.where(alone, self.allocation.stopped_by, np.where(spent, "budget", ""))
        reasons = np.where(alone & (evidence.n_trials == 0), "confident", reasons)
        images, evaluations = self._image[slots], window.evaluations[slots]
        due = np.minimum(self.allocation.next_decision(evidence.n_trials), self.allocation.max_trials)
        self._due[slots] = np.minimum(due, evidence.n_trials + affordable)
        done = np.flatnonzero(reasons != "")
        finished = self._release(slots[done], reasons[done].tolist(), evidence.posterior[done])
        for reason, others in (aside or {}).items():
            if len(others):
                finished += self._release(others, [reason] * len(others), softmax(window.log_prior[others], axis=1))
        return Step(images, evidence, evaluations, finished, rows, pairs)

    def _affordable(self, slots: np.ndarray) -> np.ndarray:
        """Further trials that the images in these slots may cost, int `[m]`."""
        per_trial = self._window.alive[slots].sum(axis=1) * self.evaluate.n_prompts
        left = (self._budget[slots] - self._window.evaluations[slots]) // per_trial
        return np.minimum(left, self.allocation.max_trials)

    def _release(
        self, slots: np.ndarray, stopped_by: list[str], posterior: np.ndarray
    ) -> list[tuple[int, RerankResult]]:
        """Free the slots of images that are done; their numbers and results."""
        results = self._results(slots, stopped_by, posterior)
        self._free(slots)
        return list(zip(self._image[slots].tolist(), results, strict=True))

    def _free(self, slots: np.ndarray) -> None:
        self._window.occupied[slots] = False
        self.evaluate.release(slots)
        self._tasks[slots] = None

    def _results(self, slots: np.ndarray, stopped_by: list[str], posterior: np.ndarray) -> list[RerankResult]:
        """What is known of the images in slots `[m]`, by their shares `[m, K]`."""
        tasks, errors = self._tasks[slots].tolist(), self._window.errors
        n_trials, evaluations = self._window.n_trials[slots].tolist(), self._window.evaluations[slots].tolist()
        evidence = [
            errors[slot, :n, : len(task.candidates)].copy()
            for slot, n, task in zip(slots.tolist(), n_trials, tasks, strict=True)
        ]
        return results_of(tasks, posterior, stopped_by, evaluations, evidence)


def _below(evidence: Evidence, keep: np.ndarray) -> np.ndarray:
    """Shares `[m, K]`, none above the smallest of a candidate that stays `[m, K]`.

    A test can drop a class whose share is larger than that of one it keeps. With shares bounded like this, none that
    was dropped can ever rank first.
    """
    stays = np.where(evidence.alive & keep, evidence.posterior, np.inf)
    return np.minimum(evidence.posterior, stays.min(axis=1, keepdims=True))
