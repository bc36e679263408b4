"""Input and output of the reranking loop for one image: a task, and making its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..ports import Condition, Label
from ..utils.bounds import check_whole, is_whole
from .evidence import RerankResult
from .fusion import Fusion

__all__ = [
    "LOG_ZERO",
    "Task",
    "as_log_prior",
    "check_task",
    "check_tasks",
    "prior_result",
    "results_of",
    "uniform_prior",
]

LOG_ZERO = -1e3
"""Stands for a log prior of -inf, so that evidence can still be weighed against it."""


REASONS_ASIDE = ("", "novel", "off")
"""Reasons why tier 1 answers an image that was not asked about; "" to ask."""


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
        The candidates' conditions, if the evaluator may not have them yet.
    aside : str
        Reason why tier 1 answers, as `RerankResult.stopped_by` will say: "novel", "off", or "" to ask tier 2.
    turn : int
        Images of lower turns come first; among equal ones, the first to arrive.
    """

    image: int
    candidates: tuple[Label, ...]
    log_prior: np.ndarray
    max_evaluations: int | None = None
    condition: Condition | None = None
    aside: str = ""
    turn: int = 0


def uniform_prior(candidates: Sequence[Label]) -> np.ndarray:
    """The uniform log prior `[k]` of candidates `[k]`; read-only."""
    return _uniform(len(candidates))


@lru_cache
def _uniform(k: int) -> np.ndarray:
    prior = np.full(k, -np.log(max(k, 1)))
    prior.flags.writeable = False
    return prior


def as_log_prior(values: Any, where: str) -> np.ndarray:
    """A log prior as a float array; an error begins with `where`.

    Raises
    ------
    InvalidInputError
        For what no numbers can be made of.
    """
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{where}: a log prior must be one number per candidate, got {values!r}") from error


def check_task(task: Task, where: str | None = None) -> Task:
    """The task, if it makes sense; errors begin with `where`, by default the image's number.

    Raises
    ------
    InvalidInputError
        For no candidates, duplicates, lengths that differ, a prior that is nan or +inf, a bound that is negative or no
        whole number, or an unknown reason to set it aside.
    """
    prior = np.asarray(task.log_prior, dtype=float)
    where = where or f"image {task.image}"
    if not task.candidates:
        raise InvalidInputError(f"{where} has no candidates; give at least one label")
    if len(set(task.candidates)) != len(task.candidates):
        raise InvalidInputError(f"{where} lists a candidate twice: {task.candidates}")
    if prior.shape != (len(task.candidates),):
        raise InvalidInputError(f"{where} has {len(task.candidates)} candidates but a log prior of shape {prior.shape}")
    if not prior.max() < np.inf:  # nan is neither
        raise InvalidInputError(f"{where}: a log prior must be a finite number or -inf, got {prior}")
    if task.max_evaluations is not None:
        check_whole(f"{where}: max_evaluations", task.max_evaluations, 0)
    if task.aside not in REASONS_ASIDE:
        raise InvalidInputError(f'{where}: aside must be "novel", "off", or "" to ask tier 2, got {task.aside!r}')
    return task


def check_tasks(tasks: Sequence[Task]) -> None:
    """Check all tasks, with errors as for `check_task` and seven times as fast, as a GPU waits for it."""
    if tasks and not _sound(tasks):
        for task in tasks:
            check_task(task)


def _sound(tasks: Sequence[Task]) -> bool:
    """Tell if every task makes sense, by checks over all of them at once."""
    return (
        all(labels and len(set(labels)) == len(labels) for labels in {task.candidates for task in tasks})
        and all(task.log_prior.shape == (len(task.candidates),) for task in tasks)
        and all(task.max_evaluations is None or is_whole(task.max_evaluations, 0) for task in tasks)
        and all(task.aside in REASONS_ASIDE for task in tasks)
        and bool((np.concatenate([task.log_prior for task in tasks]) < np.inf).all())  # nan is neither
    )


def prior_result(task: Task, fusion: Fusion, stopped_by: str) -> RerankResult:
    """The result of an image without any evaluation: tier 1's answer."""
    log_prior = np.maximum(task.log_prior, LOG_ZERO)[None]
    posterior = fusion.posterior(log_prior, np.zeros_like(log_prior), np.zeros(1, dtype=int))
    nothing = np.empty((0, len(task.candidates)), dtype=np.float32)
    return results_of([task], posterior, [stopped_by], [0], [nothing])[0]


def results_of(
    tasks: Sequence[Task],
    posterior: np.ndarray,
    stopped_by: Sequence[str],
    evaluations: Sequence[int],
    evidence: Sequence[np.ndarray],
) -> list[RerankResult]:
    """The results of m tasks.

    Parameters
    ----------
    tasks, stopped_by, evaluations : sequences of length m
        Tasks, reasons for stopping and costs.
    posterior : float array `[m, K]`
        Posteriors; the first k of a row belong to the task's k candidates.
    evidence : m float arrays `[rows, k]`
        Errors by trial and candidate.
    """
    own = np.arange(posterior.shape[1]) < np.array([len(task.candidates) for task in tasks])[:, None]
    orders = np.argsort(np.where(own, -posterior, np.inf), axis=1, kind="stable").tolist()
    results = []
    for task, row, order, why, n, errors in zip(
        tasks, posterior, orders, stopped_by, evaluations, evidence, strict=True
    ):
        k = len(task.candidates)
        ranking = tuple(map(task.candidates.__getitem__, order[:k]))
        own_row = row[:k].copy()  # a view would keep the whole batch's alive
        results.append(RerankResult(task.candidates, own_row, ranking, n, len(errors), why, errors))
    return results
