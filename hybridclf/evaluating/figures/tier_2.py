"""Answers of tier 2 alone, from a recording: the candidate with the lowest mean error."""

import numpy as np

from ..recording import Recording

__all__ = ["right_by_error", "trial_counts"]


def right_by_error(
    recording: Recording, trials: np.ndarray | slice, weights: np.ndarray | None = None, objective: str = "l2"
) -> np.ndarray:
    """Images that are answered right by the lowest mean error over some trials, bool `[n]`.

    Where an error is not finite the answer is tier 1's first class.

    Parameters
    ----------
    recording : Recording
        n images.
    trials : int array `[m]` or slice
        Positions of the trials, or a slice of them.
    weights : float array `[T]`, optional
        Timestep weights of all recorded trials. Default: 1.
    objective : str
        Error between noise and predicted noise.

    References
    ----------
    Algorithm 1 of arXiv 2303.16203.
    """
    weights = np.ones(recording.n_trials) if weights is None else weights
    with np.errstate(invalid="ignore"):  # 0 · inf
        sums = np.einsum("ntk,t->nk", recording.errors[objective][:, trials], weights[trials])
    best = np.where(np.isfinite(sums).all(axis=1), sums.argmin(axis=1), 0)
    return recording.hit[np.arange(len(recording)), best]


def trial_counts(n_trials: int) -> list[int]:
    """Numbers of trials that curves are drawn at: the powers of two below T, and T."""
    return [*(2**i for i in range((n_trials - 1).bit_length())), n_trials]
