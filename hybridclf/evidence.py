"""What has been seen so far of the images under way, and what comes out for each in the end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .ports import Label

if TYPE_CHECKING:
    from .fusion import Fusion

__all__ = ["Evidence", "RerankResult", "Window"]


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
        Denoiser predictions (image, trial, class) that were spent.
    rows : int
        Trials that were run; for a late-conditioned denoiser this is the cost.
    stopped_by : str
        "confident" (one candidate left), "budget" (no trials or evaluations left), "fallback" (an error was not
        finite: the answer is tier 1's) or "deadline" (the best answer so far, from a live server).
    evidence : float32 array `[rows, k]`
        Weighted error of each candidate in each trial, in the order of the trials; nan once it was dropped.
    """

    candidates: tuple[Label, ...]
    posterior: np.ndarray
    ranking: tuple[Label, ...]
    evaluations: int
    rows: int
    stopped_by: str
    evidence: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Evidence on m images at a moment of decision: all that an allocation gets to see.

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
    errors : float32 array `[m, max(n_trials), K]`
        The weighted errors themselves; nan where nothing was evaluated.
    """

    log_prior: np.ndarray
    alive: np.ndarray
    n_trials: np.ndarray
    sums: np.ndarray
    posterior: np.ndarray
    errors: np.ndarray

    @property
    def n_candidates(self) -> np.ndarray:
        """How many candidates each image came with, int `[m]`."""
        return np.isfinite(self.log_prior).sum(axis=1)

    @property
    def mean_errors(self) -> np.ndarray:
        """Mean weighted error `[m, K]` over the trials so far; inf for candidates that are out."""
        mean = self.sums / np.maximum(self.n_trials, 1)[:, None]
        return np.where(self.alive, mean, np.inf)


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
        self.errors = np.full((n_slots, n_trials, n_candidates), np.nan, dtype=np.float32)
        self.n_trials = np.zeros(n_slots, dtype=int)
        self.evaluations = np.zeros(n_slots, dtype=int)

    def admit(self, slots: np.ndarray, log_prior: np.ndarray) -> None:
        """Put new images with these log priors `[m, K]` (-inf padded) into free slots `[m]`."""
        self.occupied[slots] = True
        self.log_prior[slots] = log_prior
        self.alive[slots] = np.isfinite(log_prior)
        self.frozen[slots] = self.sums[slots] = 0.0
        self.errors[slots] = np.nan
        self.n_trials[slots] = self.evaluations[slots] = 0

    def record(self, slots: np.ndarray, trials: np.ndarray, candidates: np.ndarray, errors: np.ndarray) -> None:
        """Note the errors `[P]` of P pairs (slot, trial, candidate), each index array `[P]`, trials in order."""
        self.errors[slots, trials, candidates] = errors
        np.add.at(self.sums, (slots, candidates), errors.astype(float))
        np.add.at(self.evaluations, slots, 1)
        np.maximum.at(self.n_trials, slots, trials + 1)

    def view(self, slots: np.ndarray, fusion: "Fusion") -> Evidence:
        """The evidence on the images in these slots, with the posterior that fusion makes of it."""
        log_prior, alive, n_trials, sums = (a[slots] for a in (self.log_prior, self.alive, self.n_trials, self.sums))
        posterior = fusion.posterior(log_prior, sums, n_trials, alive, self.frozen[slots])
        errors = self.errors[slots, : n_trials.max(initial=0)]
        return Evidence(log_prior, alive, n_trials, sums, posterior, errors)

    def drop(self, slots: np.ndarray, keep: np.ndarray, posterior: np.ndarray) -> None:
        """Drop candidates that are not in keep `[m, K]`; each keeps the share it had at that moment."""
        dropped = self.alive[slots] & ~keep
        self.frozen[slots] = np.where(dropped, posterior, self.frozen[slots])
        self.alive[slots] &= keep
