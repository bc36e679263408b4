"""What has been seen so far of the images under way, and what comes out for each in the end."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from .ports import Label

if TYPE_CHECKING:
    from .fusion import Fusion

TIER_1_ANSWERS = ("fallback", "novel", "off")
"""Reasons for stopping where the answer is tier 1's own, at its own temperature."""

__all__ = ["TIER_1_ANSWERS", "Evidence", "PairedDifferences", "RerankResult", "Window", "evidence_before"]


@dataclass(frozen=True)
class RerankResult:
    """The answer for one image, with what it cost and what it rests on.

    Attributes
    ----------
    candidates : tuple of labels `[k]`
        The classes that were compared, as handed over.
    posterior : float array `[k]`
        Share of each candidate; sums to one.
    ranking : tuple of labels `[k]`
        The candidates, best first.
    evaluations : int
        Denoiser predictions (image, trial, class) that were asked for; with several prompts per class, one for each.
        What a batch would else have been padded with does not count (`Foresight`).
    rows : int
        Trials that were asked for; for a late-conditioned denoiser this is the cost.
    stopped_by : str
        "confident" (one candidate left), "budget" (no trials or evaluations left) or "deadline" (the best answer so
        far, from a live server). The answer is tier 1's where it is "fallback" (an error was not finite), "novel"
        (errors beyond what calibration images had: the image is unlike all of them) or "off" (held-out images say that
        tier 2 does not pay, or not for tier 1's first class).
    evidence : float32 array `[rows, k]`
        Weighted error of each candidate in each trial, in the order of the trials; nan once it was dropped. Of a trial
        that was cut short ("deadline", "fallback") the errors count as evaluations, but are neither row nor evidence.
    """

    candidates: tuple[Label, ...]
    posterior: np.ndarray
    ranking: tuple[Label, ...]
    evaluations: int
    rows: int
    stopped_by: str
    evidence: np.ndarray


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence on m images at a moment of decision: all that an allocation gets to see.

    It shows that moment for good, whatever comes of the images later.

    Attributes
    ----------
    log_prior : float array `[m, K]`
        Tier 1's log-probabilities of the candidates; -inf pads short candidate lists.
    alive : bool array `[m, K]`
        Candidates not dropped yet.
    n_trials : int array `[m]`
        Trials each image has seen.
    sums : float array `[m, K]`
        Sum of the weighted errors over these trials (of dropped candidates: until they were dropped).
    posterior : float array `[m, K]`
        Shares of the candidates so far; rows sum to one.
    """

    log_prior: np.ndarray
    alive: np.ndarray
    n_trials: np.ndarray
    sums: np.ndarray
    posterior: np.ndarray
    _window: "Window" = field(repr=False)
    _slots: np.ndarray = field(repr=False)
    _moment: int = field(repr=False)
    _kept: list[np.ndarray] = field(default_factory=list, repr=False)  # the errors, once the window has lost them

    @property
    def n_candidates(self) -> np.ndarray:
        """How many candidates each image came with, int `[m]`."""
        return np.isfinite(self.log_prior).sum(axis=1)

    @property
    def mean_errors(self) -> np.ndarray:
        """Mean weighted error `[m, K]` over the trials so far; inf for candidates that are out."""
        mean = self.sums / np.maximum(self.n_trials, 1)[:, None]
        return np.where(self.alive, mean, np.inf)

    @property
    def leads(self) -> np.ndarray:
        """Which candidate has the largest share of those that are not out, bool `[m, K]`, one per image."""
        leader = np.where(self.alive, self.posterior, -1.0).argmax(axis=1)
        return np.arange(self.alive.shape[1]) == leader[:, None]

    @property
    def errors(self) -> np.ndarray:
        """The weighted errors of these trials, float32 `[m, max(n_trials), K]`, nan where nothing was evaluated.

        A copy, made when asked for.
        """
        return self._kept[0].copy() if self._kept else self._read()

    def _read(self) -> np.ndarray:
        errors = self._window.errors[self._slots, : self.n_trials.max(initial=0)]
        errors[np.arange(errors.shape[1]) >= self.n_trials[:, None]] = np.nan  # of trials that came later
        return errors

    def _keep(self) -> None:
        """Keep the errors: the window is about to reuse some of the slots."""
        if not self._kept:
            self._kept.append(self._read())

    def differences(self, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, each `[m, K]`, over the trials of the errors minus those of one candidate `[m]`.

        At the moment of decision it is cheap where the reference is the one of the time before.
        """
        if self._moment == self._window.moment:
            return self._window.differences(self._slots, reference, self.n_trials)
        differences = PairedDifferences(self.errors)
        return differences(np.arange(len(reference)), reference, self.n_trials)


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
        """These slots `[m]` hold new images."""
        self.reference[slots] = -1

    def __call__(self, slots: np.ndarray, reference: np.ndarray, n_trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance `[m, K]` over the first `n_trials` `[m]`, against the candidates `reference` `[m]`."""
        changed = slots[self.reference[slots] != reference]
        self.mean[changed] = self.squares[changed] = 0.0
        self.n_trials[changed] = 0
        self.reference[slots] = reference
        while len(behind := slots[self.n_trials[slots] < n_trials]):
            self._add(behind)
        return self.mean[slots], self.squares[slots] / np.maximum(n_trials - 1, 1)[:, None]

    def _add(self, slots: np.ndarray) -> None:
        """Take in one more trial of each of these slots."""
        errors = self.errors[slots, self.n_trials[slots]].astype(float)
        difference = errors - np.take_along_axis(errors, self.reference[slots, None], axis=1)
        self.n_trials[slots] += 1
        surprise = difference - self.mean[slots]
        self.mean[slots] += surprise / self.n_trials[slots, None]
        self.squares[slots] += surprise * (difference - self.mean[slots])


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
