"""The one reranking loop: continuous batching of images, candidates and trials.

Images come in with their candidates, rows of all images under way fill one batch, and finished images leave at once
and make room:

    admit ─► fill ─► evaluate ─► record ─► (done? leave) ─► fill ─► …

The loop knows neither models nor images: an `Evaluator` computes the errors of a batch, an allocation decides, a fusion
makes posteriors, a window holds what is known of each image.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .allocation import Allocation
from .batches import Batch, Capacity, Evaluator, Pending
from .evidence import Evidence, RerankResult
from .fusion import Fusion
from .tasks import LOG_ZERO, Task, results_of
from .window import Window, evidence_before

__all__ = ["Loop", "Step"]

ARRIVALS = 256
"""Images that are admitted at a time: a device that works by itself need not wait until all places are taken."""

FULL = 0.9
"""Least fullness of a batch that is begun ahead: images that wait for errors of the one before could fill it."""

GIVE_UP_AFTER = 32
"""First images, none of them with a finite error, after which `run` asks for no more."""


@dataclass(frozen=True)
class Step:
    """One turn of the loop: everything one might watch.

    Attributes
    ----------
    images : int array `[m]`
        Numbers of the images that were judged.
    evidence : Evidence
        The evidence on these m images at that moment.
    evaluations : int array `[m]`
        Evaluations that each had cost so far.
    finished : list of (int, RerankResult)
        Images that are done, by number.
    batch_rows, batch_evaluations : int
        Denoiser work of this turn: rows that began in it, and evaluations.
    """

    images: np.ndarray
    evidence: Evidence
    evaluations: np.ndarray
    finished: list[tuple[int, RerankResult]]
    batch_rows: int = 0
    batch_evaluations: int = 0


class Loop:
    """Reranks tasks batch by batch; `run` is the generator one can watch.

    A live server drives the parts of `run` itself: `admit`, `fill`, the evaluator, `record`. Between those calls it
    may ask for the `best` answer so far and `evict` images.

    Parameters
    ----------
    allocation : Allocation
        Decides which candidates get the next trial, and when to stop.
    fusion : Fusion
        Turns prior and evidence into posteriors.
    evaluate : Evaluator
        Computes the errors of a batch.
    capacity : Capacity
        Size of a batch.
    window : Window
        Slots of the images under way.
    ahead : int
        Batches that `run` begins, with other images, before it has the errors of the one before: a device that works by
        itself need not wait for the bookkeeping.
    ceilings : float array `[max_trials + 1]`, optional
        Highest usual sum of the best candidate's errors after 0, 1, … trials; an image beyond it is novel, and
        done with tier 1's answer. Default: no bound.
    """

    def __init__(
        self,
        allocation: Allocation,
        fusion: Fusion,
        evaluate: Evaluator,
        capacity: Capacity,
        window: Window,
        ahead: int = 0,
        ceilings: np.ndarray | None = None,
    ) -> None:
        self.allocation = allocation
        self.fusion = fusion
        self.evaluate = evaluate
        self.capacity = capacity
        self.window = window
        self.ahead = ahead
        self._ceilings = np.full(allocation.max_trials + 1, np.inf) if ceilings is None else ceilings
        self._failures = 0.0  # images before the first finite error, -inf after it

    @property
    def free(self) -> int:
        """Number of images that can be admitted now."""
        return int((~self.window.occupied).sum())

    def run(self, tasks: Iterable[Task]) -> Iterator[Step]:
        """Rerank all tasks, yielding every step; tasks are drawn as room becomes free.

        Where the first images have no finite error at all, tier 1 answers the rest.
        """
        queue, begun = iter(tasks), deque[tuple[Batch, Pending]]()
        while self._failures < GIVE_UP_AFTER:
            if arrivals := list(islice(queue, min(self.free, ARRIVALS))):
                yield self.admit(arrivals)
            if batch := self._next(len(begun), more=bool(arrivals)):
                self.window.busy[batch.slot] = True
                begun.append((batch, self.evaluate(batch)))
            elif begun and not arrivals:
                batch, errors = begun.popleft()
                yield self.record(batch, errors())
            elif not arrivals:
                return
        yield from self._give_up(queue)

    def _next(self, n_begun: int, more: bool) -> Batch | None:
        """The batch to begin now that so many have: a full one, or any if no more images may come."""
        slots = self.window.idle
        if n_begun > self.ahead or not len(slots):
            return None
        # rows of other images can still join a batch that is not full, so it is begun only if no more images may come
        batch, n_rows = self.fill(), (self.window.due - self.window.n_trials)[slots].sum()
        fullness = self.capacity.fullness(batch)
        full = fullness == 1 or n_rows > len(batch.slot)
        return batch if full or (not more and fullness >= (FULL if n_begun else 0)) else None

    def _give_up(self, queue: Iterator[Task]) -> Iterator[Step]:
        """Let tier 1 answer the images under way and those that wait."""
        while True:
            yield self._judge(np.arange(0), {"fallback": np.flatnonzero(self.window.occupied)})
            if not (arrivals := list(islice(queue, self.free))):
                return
            yield self.admit(arrivals)

    def admit(self, tasks: list[Task]) -> Step:
        """Take in at most `free` images; those that need no tier 2 are finished at once.

        Their prior settles them, or they are set aside.
        """
        slots = self.window.admit(tasks)
        self.evaluate.admit(slots, tasks)
        aside = np.array([self._aside(task) for task in tasks])
        return self._judge(
            slots[aside == ""], {reason: slots[aside == reason] for reason in dict.fromkeys(aside.tolist()) if reason}
        )

    def _aside(self, task: Task) -> str:
        """Reason why tier 1 answers, "" if tier 2 is asked; the fusion does not ask about all of tier 1's classes."""
        if self.fusion.asks(task.candidates[int(np.argmax(task.log_prior))]):
            return task.aside
        # what was fitted, if only a temperature, was not fitted on such an image
        return "novel" if task.aside == "novel" and self.fusion.calibrated else "off"

    def fill(self) -> Batch:
        """The next batch: rows of the images under way that no batch has, by turn and arrival.

        Images a and b have three candidates, and a is due two more trials. Seven evaluations fill a batch that may
        split rows:

            row        0      1      2
            image      a      a      b
            trial      4      5      0
            evaluated  A B C  A B C  A      B and C of b's trial 0 go first in the next batch
        """
        window = self.window
        slots = window.idle
        n_rows = np.minimum(window.due[slots] - window.n_trials[slots], self.capacity.rows)
        slot = np.repeat(slots, n_rows)[: self.capacity.rows]
        # 0, 1, … within each image: its first row continues a trial that an earlier batch may have begun
        index = np.arange(len(slot))
        nth = index - np.maximum.accumulate(np.where(np.diff(slot, prepend=-1) != 0, index, 0))
        row, candidate = self.capacity.select(window.alive[slot], np.where(nth == 0, window.begun[slot], 0))
        slot, nth = slot[: row[-1] + 1], nth[: row[-1] + 1]
        return Batch(slot, window.image[slot], window.n_trials[slot] + nth, row, candidate)

    def record(self, batch: Batch, errors: np.ndarray) -> Step:
        """Note the errors `[E]` of a batch, and judge the images whose trials are in."""
        window = self.window
        with np.errstate(over="ignore"):  # beyond what evidence can hold, an error counts as infinite
            errors = np.where(np.isfinite(np.asarray(errors, dtype=np.float32)), errors, np.nan)
        slots, slot = np.unique(batch.slot), batch.slot[batch.row]
        n_rows = len(batch.slot) - int(np.count_nonzero(window.begun[slots]))  # those that begin in this batch
        window.busy[slots] = False
        window.record(slot, batch.trial[batch.row], batch.candidate, errors, self.evaluate.n_prompts)
        finite = np.isfinite(errors)
        broken = np.unique(slot[~finite])
        self._failures = -np.inf if finite.any() else self._failures + len(broken)
        window.sums[broken] = 0.0  # tier 1 answers; an infinite sum has no posterior
        due = np.setdiff1d(slots[window.n_trials[slots] >= window.due[slots]], broken)
        novel = self._novel(due)
        n_evaluations = len(batch.row) * self.evaluate.n_prompts
        return self._judge(due[~novel], {"fallback": broken, "novel": due[novel]}, n_rows, n_evaluations)

    def _novel(self, slots: np.ndarray) -> np.ndarray:
        """Mask of the slots `[m]` whose image has unusual errors under its best candidate."""
        lowest = np.where(self.window.alive[slots], self.window.sums[slots], np.inf).min(axis=1)
        return lowest > self._ceilings[self.window.n_trials[slots]]

    def settled(self, task: Task) -> RerankResult | None:
        """The result of an image that needs no tier 2, else None; for any thread, as it is not admitted."""
        evidence = evidence_before(np.maximum(task.log_prior, LOG_ZERO)[None], self.fusion)
        reason, posterior = "confident", evidence.posterior
        if aside := self._aside(task):
            reason, posterior = aside, self.fusion.tier_1(evidence.log_prior, aside)
        elif (self.allocation.survivors(evidence) | evidence.leads).sum() > 1:
            return None
        return results_of([task], posterior, [reason], [0], [evidence.errors[0]])[0]

    def best(self, image: int, stopped_by: str) -> RerankResult:
        """The answer so far for an image under way, which stays under way."""
        slots = self.window.slots_of([image])
        return self._results(slots, [stopped_by], self.window.view(slots, self.fusion).posterior)[0]

    def evict(self, images: Collection[int]) -> None:
        """Give up images by their numbers, where they are still under way. No batch of `run` may have them."""
        slots = self.window.slots_of(images)
        assert not self.window.busy[slots].any(), "errors of an evicted image would go to the one after it"
        self._free(slots)

    def _judge(
        self,
        slots: np.ndarray,
        aside: Mapping[str, np.ndarray],
        batch_rows: int = 0,
        batch_evaluations: int = 0,
    ) -> Step:
        """Let the allocation decide on these slots, and release the images that are done.

        Slots set aside, by reason, are done too: tier 1 answers them.
        """
        window = self.window
        evidence = window.view(slots, self.fusion)
        keep = self.allocation.survivors(evidence) | evidence.leads  # the best candidate is never dropped
        window.drop(slots, keep, _below(evidence, keep))
        reasons = self._reasons(slots, evidence, alone=(evidence.alive & keep).sum(axis=1) <= 1)
        images, evaluations, done = window.image[slots], window.evaluations[slots], reasons != ""
        finished = self._finish(slots[done], reasons[done].tolist(), evidence.posterior[done])
        for reason, others in aside.items():
            tier_1 = self.fusion.tier_1(window.log_prior[others], reason)
            finished += self._finish(others, [reason] * len(others), tier_1)
        return Step(images, evidence, evaluations, finished, batch_rows, batch_evaluations)

    def _reasons(self, slots: np.ndarray, evidence: Evidence, alone: np.ndarray) -> np.ndarray:
        """Reasons for stopping, str `[m]`, "" for images that go on. Theirs is the next decision, which is set.

        Parameters
        ----------
        slots : int array `[m]`
            The images that were judged.
        evidence : Evidence
            The evidence on them.
        alone : bool array `[m]`
            Images of which one candidate is left.
        """
        window, max_trials = self.window, self.allocation.max_trials
        # a trial costs each live candidate's prompts; what the budget does not pay in full is not begun
        per_trial = window.alive[slots].sum(axis=1) * self.evaluate.n_prompts
        affordable = np.minimum((window.budget[slots] - window.evaluations[slots]) // per_trial, max_trials)
        # [m]: when the allocation wants to look again, but no later than trials or budget end
        due = np.minimum(self.allocation.next_decision(evidence.n_trials), max_trials)
        window.due[slots] = np.minimum(due, evidence.n_trials + affordable)
        spent = (evidence.n_trials >= max_trials) | (affordable < 1)
        reasons = np.where(alone, self.allocation.stopped_by, np.where(spent, "budget", ""))
        return np.where(alone & (evidence.n_trials == 0), "confident", reasons)

    def _finish(
        self, slots: np.ndarray, stopped_by: list[str], posterior: np.ndarray
    ) -> list[tuple[int, RerankResult]]:
        """Free the slots of images that are done, and return their numbers and results."""
        results = self._results(slots, stopped_by, posterior)
        self._free(slots)
        return list(zip(self.window.image[slots].tolist(), results, strict=True))

    def _free(self, slots: np.ndarray) -> None:
        self.window.release(slots)
        self.evaluate.release(slots)

    def _results(self, slots: np.ndarray, stopped_by: list[str], posterior: np.ndarray) -> list[RerankResult]:
        """The results of the images in slots `[m]`, with these posteriors `[m, K]`."""
        window = self.window
        tasks, n_trials = window.task[slots].tolist(), window.n_trials[slots].tolist()
        evidence = [
            window.errors[slot, :n, : len(task.candidates)].copy()
            for slot, n, task in zip(slots.tolist(), n_trials, tasks, strict=True)
        ]
        return results_of(tasks, posterior, stopped_by, window.evaluations[slots].tolist(), evidence)


def _below(evidence: Evidence, keep: np.ndarray) -> np.ndarray:
    """Posteriors `[m, K]`, none above the smallest of a candidate that stays `[m, K]`.

    A test can drop a class whose posterior is larger than that of one it keeps. Bounded like this, no dropped class
    can ever rank first.
    """
    stays = np.where(evidence.alive & keep, evidence.posterior, np.inf)
    return np.minimum(evidence.posterior, stays.min(axis=1, keepdims=True))
