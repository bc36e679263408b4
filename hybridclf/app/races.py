"""Race of one picture for the page: its moments as they come, and the finish."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..explanation import Explanation, explain
from ..ports import Label
from ..reranking.allocation import Race
from ..reranking.evidence import RerankResult

__all__ = ["Finish", "Moment", "describe", "watch"]

EXPLAINED_TRIALS = 16
"""Trials behind an explanation, those of the race among them."""

STOPPED = "stopped"
"""Reason for stopping of a race that was ended by its watcher."""


@dataclass(frozen=True)
class Moment:
    """Race of k candidates at one moment.

    Attributes
    ----------
    candidates : tuple of labels `[k]`
        Candidates in tier 1's order.
    prior, posterior : float array `[k]`
        Shares of the candidates before the first trial, and now.
    alive : bool array `[k]`
        Candidates that were not dropped.
    trials, evaluations : int
        Cost so far.
    errors : float array `[trials, k]`
        Weighted errors so far.
    """

    candidates: tuple[Label, ...]
    prior: np.ndarray
    posterior: np.ndarray
    alive: np.ndarray
    trials: int
    evaluations: int
    errors: np.ndarray


@dataclass(frozen=True)
class Finish:
    """End of a race, over all C classes.

    Attributes
    ----------
    labels : list of labels `[C]`
        All classes.
    prior, posterior : float array `[C]`
        Their probabilities by tier 1 alone and by both tiers.
    result : RerankResult
        Outcome of the race.
    novelty : float or None
        P-value that the picture is one of the classes; None if the model has no test of it.
    rejected : bool
        True if that is at most the model's `reject`.
    explanation : Explanation or None
        Reasons for the first class, and against tier 1's or else the second; None if there are none to show.
    """

    labels: list[Label]
    prior: np.ndarray
    posterior: np.ndarray
    result: RerankResult
    novelty: float | None
    rejected: bool
    explanation: Explanation | None

    @property
    def order(self) -> list[int]:
        """Positions of the classes, the likeliest first."""
        return np.argsort(-self.posterior, kind="stable").tolist()


def watch(
    clf: HybridClassifier, image: Image.Image, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Moment | Finish]:
    """Generate the moments of a race as they come, and its finish at the end.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    image : PIL image
        Picture of any size; the map has its size.
    stopped : function
        Tells before each trial whether to end the race with the answer so far.
    """
    items = clf._read([image])
    candidates, log_prior, own = clf._propose(items)
    labels, k = tuple(candidates[0]), len(candidates[0])
    prior = clf.fusion_.prior(own)[0]
    among = prior[[clf.classes_.tolist().index(label) for label in labels]]
    moment, result = None, None
    for step in clf.reranker().stream(items.images, candidates, log_prior, clf._aside(items)):
        if len(step.images):
            evidence = step.evidence
            moment = Moment(
                candidates=labels,
                prior=among / among.sum(),
                posterior=evidence.posterior[0, :k],
                alive=evidence.alive[0, :k],
                trials=int(evidence.n_trials[0]),
                evaluations=int(step.evaluations[0]),
                errors=evidence.errors[0, :, :k],
            )
            yield moment
        result = next((done for _, done in step.finished), result)
        if result is None and moment is not None and stopped():
            result = _answer_so_far(moment)
            break
    assert result is not None  # the stream of one image ends with it
    posterior = clf._posterior(own, [result])[0]
    yield Finish(
        labels=clf.classes_.tolist(),
        prior=prior,
        posterior=posterior,
        result=result,
        novelty=(p := _novelty(clf, image)),
        rejected=p is not None and clf.reject is not None and p <= clf.reject,
        explanation=_explanation(clf, items.images, image, own[0], posterior, result),
    )


def _answer_so_far(moment: Moment) -> RerankResult:
    order = np.argsort(-moment.posterior, kind="stable")
    ranking = tuple(moment.candidates[i] for i in order)
    cost = (moment.evaluations, moment.trials)
    return RerankResult(moment.candidates, moment.posterior, ranking, *cost, STOPPED, moment.errors)


def _novelty(clf: HybridClassifier, image: Image.Image) -> float | None:
    tested = clf.calibration_ is not None and clf.calibration_.novelty is not None
    return float(clf.novelty([image])[0]) if tested else None


def _explanation(
    clf: HybridClassifier, items: Any, image: Image.Image, own: np.ndarray, posterior: np.ndarray, result: RerankResult
) -> Explanation | None:
    """Reasons for the likeliest class and against the next; None for an objective or errors that allow none."""
    first, second = np.argsort(-posterior, kind="stable")[:2]
    pair = [first, own.argmax() if own.argmax() != first else second]
    a, b = clf.classes_[pair].tolist()
    stage, size = clf.reranker(Race(max_trials=EXPLAINED_TRIALS)), (image.height, image.width)
    try:
        return explain(stage, items, size, (a, b), own[pair], clf._objective, result)
    except InvalidInputError:
        return None


def describe(finish: Finish) -> dict[str, Any]:
    """The finish as JSON can hold it: all classes, cost, novelty, errors by trial, and the explanation with its map."""
    result, explanation = finish.result, finish.explanation
    shares = [
        {"label": finish.labels[i], "prior": float(finish.prior[i]), "posterior": float(finish.posterior[i])}
        for i in finish.order
    ]
    return {
        "label": None if finish.rejected else shares[0]["label"],
        "classes": shares,
        "evaluations": result.evaluations,
        "trials": result.rows,
        "stopped_by": result.stopped_by,
        "novelty": finish.novelty,
        "candidates": list(result.candidates),
        "errors": _numbers(result.evidence),
        "explanation": None
        if explanation is None
        else {name: _numbers(v) for name, v in (asdict(explanation) | {"log_odds": explanation.log_odds}).items()},
    }


def _numbers(value: Any) -> Any:
    """Lists in place of arrays, None in place of nan: the error of a candidate that was dropped."""
    if not isinstance(value, np.ndarray):
        return value
    return np.where(np.isnan(value), np.array(None), value.astype(float)).tolist()
