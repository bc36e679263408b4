"""The result for one image, and the evidence that an allocation sees at a moment of decision."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..ports import Label
from .differences import PairedDifferences

if TYPE_CHECKING:
    from .window import Window

TIER_1_ANSWERS = ("fallback", "novel", "off")
"""Reasons for stopping where the answer is tier 1's."""

__all__ = ["TIER_1_ANSWERS", "Evidence", "RerankResult"]


@dataclass(frozen=True)
class RerankResult:
    """The answer for one image, with what it cost and what it rests on.

    Attributes
    ----------
    candidates : tuple of labels `[k]`
        The classes that were compared, as handed over.
    posterior : float array `[k]`
        Posterior probability of each candidate; sums to one.
    ranking : tuple of labels `[k]`
        The candidates, best first.
    evaluations : int
        Denoiser predictions (image, trial, class); with several prompts per class, one for each.
    rows : int
        Trials; for a late-conditioned denoiser this is the cost.
    stopped_by : str
        "confident" (one candidate left), "budget" (no trials or evaluations left) or "deadline" (the best answer so
        far, from a live server). The answer is tier 1's where it is "fallback" (an error was not finite), "novel"
        (errors beyond what calibration images had, or a vector's numbers far from theirs) or "off" (held-out images say
        that tier 2 does not pay: at all, for tier 1's first class, or for images that look usual).
    evidence : float32 array `[rows, k]`
        Weighted error of each candidate in each trial, in the order of the trials; nan once it was dropped. Of a trial
        that was cut short ("deadline", "fallback") the errors count as evaluations, but are neither row nor evidence.
    novelty : float or None
        Conformal p-value of the image, where a classifier with `reject` asked for it; its evaluations count.
    rejected : bool
        True if that is at most `reject`: the image is none of the classes. Posterior and ranking are as without.
    """

    candidates: tuple[Label, ...]
    posterior: np.ndarray
    ranking: tuple[Label, ...]
    evaluations: int
    rows: int
    stopped_by: str
    evidence: np.ndarray
    novelty: float | None = None
    rejected: bool = False

    @property
    def label(self) -> Label:
        """The best candidate; None if the image was rejected."""
        return None if self.rejected else self.ranking[0]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence on m images at a moment of decision: the input of an allocation.

    It keeps showing that moment, whatever becomes of the images later.

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
        Posterior of the candidates so far; rows sum to one.
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
        """Number of candidates that each image came with, int `[m]`."""
        return np.isfinite(self.log_prior).sum(axis=1)

    @property
    def mean_errors(self) -> np.ndarray:
        """Mean weighted error `[m, K]` over the trials so far; inf for candidates that are out."""
        mean = self.sums / np.maximum(self.n_trials, 1)[:, None]
        return np.where(self.alive, mean, np.inf)

    @property
    def leads(self) -> np.ndarray:
        """True for the live candidate with the largest posterior, bool `[m, K]`, one per image."""
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
        """Mean and variance over the trials of the errors minus a reference candidate's, each `[m, K]`.

        At the moment of decision this is cheap if the reference is still the same.

        Parameters
        ----------
        reference : int array `[m]`
            Position of each image's reference candidate.
        """
        if self._moment == self._window.moment:
            return self._window.differences(self._slots, reference, self.n_trials)
        differences = PairedDifferences(self.errors)
        return differences(np.arange(len(reference)), reference, self.n_trials)
