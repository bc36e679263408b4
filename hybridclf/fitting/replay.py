"""Replay of an allocation on recorded errors."""

import numpy as np

from ..proposer import shortlist
from ..reranking.allocation import Allocation
from ..reranking.batches import Capacity, ReplayEvaluator
from ..reranking.fusion import Fusion
from ..reranking.loop import Loop
from ..reranking.tasks import Task
from ..reranking.window import Window

__all__ = ["replay"]


def replay(
    fusion: Fusion,
    allocation: Allocation,
    log_prior: np.ndarray,
    errors: np.ndarray,
    top_k: int | None = None,
    ceilings: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run an allocation on recorded errors, in the same loop that asks a denoiser.

    Parameters
    ----------
    fusion, allocation, top_k
        As for `HybridClassifier`.
    log_prior : float array `[n, k]`
        Tier 1's log-probabilities of the recorded candidates.
    errors : float array `[n, T, k]`
        Their weighted errors, trials in the order in which the allocation uses them.
    ceilings : float array `[T + 1]`, optional
        Highest usual sums of errors after 0, 1, … T trials; images above them keep tier 1's answer.

    Returns
    -------
    posterior : float array `[n, k]`
    evaluations : int array `[n]`
    """
    candidates = shortlist(fusion.prior(log_prior), top_k)
    # Tables by candidate, best first: candidates (2, 0) of three recorded ones take columns 2 and 0. A row's padding,
    # here a third column 0, is never asked for.
    index = np.zeros(log_prior.shape, dtype=int)
    for row, c in zip(index, candidates, strict=True):
        row[: len(c)] = c
    table = np.take_along_axis(errors[:, : allocation.max_trials], index[:, None], axis=2)
    tasks = [Task(i, tuple(c.tolist()), log_prior[i, c]) for i, c in enumerate(candidates)]
    capacity = Capacity(512, 2**14)
    window = Window.for_batches(capacity, allocation.max_trials, log_prior.shape[1])
    if ceilings is not None:
        ceilings = ceilings[: allocation.max_trials + 1]
    loop = Loop(allocation, fusion, ReplayEvaluator(table), capacity, window, ceilings=ceilings)
    finished = dict(pair for step in loop.run(tasks) for pair in step.finished)
    results = [finished[i] for i in range(len(tasks))]
    posterior = fusion.over_all_classes(log_prior, [list(result.candidates) for result in results], results)
    return posterior, np.array([result.evaluations for result in results], dtype=int)
