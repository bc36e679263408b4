"""Questions to a service, and its answers."""

from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic

import numpy as np

from ..ports import Label
from ..reranking.evidence import RerankResult
from .byte_budget import Hold

__all__ = ["Answer", "HandedIn", "Question"]


@dataclass(frozen=True)
class Question:
    """Image to classify, with labels and bounds.

    Attributes
    ----------
    image : bytes
        Content of an image file.
    labels : tuple of labels `[L]`
        Labels to choose from.
    log_prior : float array `[L]` or None
        Tier 1's log-probabilities. None: the model's own proposer computes them and shortlists the labels.
    deadline : float or None
        Deadline by `time.monotonic`.
    max_evaluations : int or None
        Most evaluations.
    client : str
        Name of the client; clients take turns.
    hold : Hold or None
        Byte budget that the decoded image is taken from.
    may_reject : bool
        Whether the image may be none of the labels, which are then the model's own; if the model rejects any.
    """

    image: bytes
    labels: tuple[Label, ...]
    log_prior: np.ndarray | None = None
    deadline: float | None = None
    max_evaluations: int | None = None
    client: str = ""
    hold: Hold | None = None
    may_reject: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())


@dataclass(frozen=True)
class Answer:
    """Posterior of the labels `[L]`, cost in evaluations, reason why re-ranking stopped, p-value that it is novel."""

    posterior: np.ndarray
    evaluations: int
    stopped_by: str
    novelty: float | None = None

    @property
    def degraded(self) -> bool:
        """True if a deadline or a failure cut the answer short."""
        return self.stopped_by in ("deadline", "fallback")


@dataclass(frozen=True)
class HandedIn:
    """Image submitted to the loop.

    Attributes
    ----------
    log_prior : float array `[L]`
        Tier 1's log-probabilities of the labels.
    candidates : int array `[k]`
        Positions of the labels that tier 2 compares.
    future : Future
        Result to come.
    novelty : float or None
        P-value of the image, where it may be rejected.
    evaluations : int
        Cost of that.
    """

    log_prior: np.ndarray
    candidates: np.ndarray
    future: Future[RerankResult]
    novelty: float | None
    evaluations: int
