"""What the reranking loop takes in for one image, and what it hands back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InvalidInputError
from .evidence import RerankResult
from .fusion import Fusion
from .ports import Condition, Label

__all__ = ["LOG_ZERO", "Task", "check_task", "prior_result", "result_of", "uniform_prior"]

LOG_ZERO = -1e3
"""What a log prior of -inf counts as, so that evidence can still be weighed against it."""


@dataclass(frozen=True)
class Task:
    """One image to rerank.

    Attributes
    ----------
    image : int
        Its number.
    candidates : tuple of labels `[k]`
        The classes to compare.
    log_prior : float array `[k]`
        Tier 1's log-probabilities of them.
    max_evaluations : int or None
        What it may cost; None for no bound but the allocation's.
    condition : Condition `[k, …]` or None
        The candidates' conditions, where the evaluator may not have them yet.
    """

    image: int
    candidates: tuple[Label, ...]
    log_prior: np.ndarray
    max_evaluations: int | None = None
    condition: Condition | None = None


def uniform_prior(candidates: Sequence[Label]) -> np.ndarray:
    """The log prior `[k]` of candidates `[k]` of which nothing is known."""
    return np.full(len(candidates), -np.log(max(len(candidates), 1)))


def check_task(task: Task, where: str | None = None) -> Task:
    """The task, if it makes sense; errors begin with `where`, by default the image's number.

    Raises
    ------
    InvalidInputError
        For no candidates, duplicates, lengths that differ, a prior that is nan or +inf, or a negative bound.
    """
    prior = np.asarray(task.log_prior, dtype=float)
    where = where or f"image {task.image}"
    if not task.candidates:
        raise InvalidInputError(f"{where} has no candidates; give at least one label")
    if len(set(task.candidates)) != len(task.candidates):
        raise InvalidInputError(f"{where} lists a candidate twice: {task.candidates}")
    if prior.shape != (len(task.candidates),):
        raise InvalidInputError(f"{where} has {len(task.candidates)} candidates but a log prior of shape {prior.shape}")
    if np.isnan(prior).any() or np.isposinf(prior).any():
        raise InvalidInputError(f"{where}: a log prior must be a finite number or -inf, got {prior}")
    if task.max_evaluations is not None and task.max_evaluations < 0:
        raise InvalidInputError(f"{where}: max_evaluations must not be below 0, got {task.max_evaluations}")
    return task


def prior_result(task: Task, fusion: Fusion, stopped_by: str) -> RerankResult:
    """Tier 1's answer, for an image of which nothing was evaluated."""
    log_prior = np.maximum(task.log_prior, LOG_ZERO)[None]
    (posterior,) = fusion.posterior(log_prior, np.zeros_like(log_prior), np.zeros(1, dtype=int))
    return result_of(task, posterior, stopped_by, 0, np.empty((0, len(task.candidates)), dtype=np.float32))


def result_of(
    task: Task, posterior: np.ndarray, stopped_by: str, evaluations: int, evidence: np.ndarray
) -> RerankResult:
    """The result of a task, from shares `[K]` of which the first k are its candidates', and evidence `[rows, k]`."""
    posterior = posterior[: len(task.candidates)].copy()  # not a view, which would keep the whole batch's alive
    order = np.argsort(-posterior, kind="stable")
    return RerankResult(
        candidates=task.candidates,
        posterior=posterior,
        ranking=tuple(task.candidates[i] for i in order),
        evaluations=evaluations,
        rows=len(evidence),
        stopped_by=stopped_by,
        evidence=evidence,
    )
