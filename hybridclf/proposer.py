"""Tier 1: from any proposer to log-probabilities, and from these to candidates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from . import plugins
from .data.arrays import Items
from .errors import InvalidInputError, InvalidTypeError
from .ports import Label

__all__ = [
    "FunctionProposer",
    "accepts_gaps",
    "aligned_log_proba",
    "column_of",
    "default_proposer",
    "is_trained",
    "log_proba",
    "resolve_proposer",
    "rows_of",
    "shortlist",
    "with_labels",
]

LOG_FLOOR = -30.0
"""Lowest log-probability taken from a proposer: forests and nearest neighbours say 0 where they mean "rarely"."""

OPEN_MASS = 1e-3
"""Prior mass that may stay outside the candidates where `top_k` is not given."""

ROUNDING = 0.01
"""How far above one a function's probabilities may sum: those of half precision do."""

_METHODS = ("predict_log_proba", "predict_proba", "decision_function")


def default_proposer() -> BaseEstimator:
    """Logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def resolve_proposer(proposer: Any, options: Mapping[str, Any] | None = None) -> Any:
    """The proposer that the parameter stands for: a default, a spec string's, or a clone of the object given.

    An adapter is offered the options.

    Raises
    ------
    UnknownSpecError
        For a string that no adapter answers to.
    InvalidTypeError
        For an object that is no function and has none of `predict_log_proba`, `predict_proba` and `decision_function`.
    """
    if proposer is None:
        return default_proposer()
    if isinstance(proposer, str):
        return plugins.offer("proposer", proposer, options or {})
    proposes = any(hasattr(proposer, name) for name in _METHODS)
    if isinstance(proposer, type) or not (proposes or callable(proposer)):
        raise InvalidTypeError(
            f"proposer must be a classifier with one of {', '.join(_METHODS)}, a function from images to "
            f'log-probabilities, or a string such as "sklearn:LogisticRegression"; got {proposer!r}'
        )
    if not proposes:
        return FunctionProposer(proposer)
    if is_trained(proposer) and hasattr(proposer, "fit") and not hasattr(proposer, "classes_"):
        _check_goes_by_labels(proposer)
    return clone(proposer) if hasattr(proposer, "__sklearn_clone__") else proposer


def _check_goes_by_labels(proposer: Any) -> None:
    """Check that a model which is neither fitted nor an estimator is one of images, whose `fit` takes labels alone.

    Raises
    ------
    InvalidTypeError
        If not: it can neither be cloned nor asked.
    """
    if not hasattr(proposer, "__sklearn_clone__") and not getattr(proposer, "takes_images", False):
        raise InvalidTypeError(
            f"proposer {proposer!r} is not fitted and cannot be cloned, since it has no get_params; let its class "
            "inherit from sklearn.base.BaseEstimator, or fit it and pass FrozenEstimator(proposer)"
        )


class FunctionProposer:
    """A plain function as a proposer; its columns are the labels that it is told first, in their order.

    Parameters
    ----------
    function : callable
        From n images, as the user passes them, to their log-probabilities `[n, C]`, an array or a tensor; -inf is
        accepted.

    Attributes
    ----------
    classes_ : array `[C]`
        The labels.
    """

    takes_images = True
    classes_: np.ndarray

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def fit(self, X: Any, y: Any) -> Self:
        """Name the columns; nothing is trained."""
        self.classes_ = np.asarray(y)
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """What the function says of n images, float `[n, C]`.

        Raises
        ------
        InvalidInputError
            For another shape, nan, inf, or rows whose probabilities sum to more than one.
        """
        values = self.function(X)
        if isinstance(values, torch.Tensor):
            values = values.detach().double().cpu()
        values = np.asarray(values, dtype=float)
        self._check(values, (len(X), len(self.classes_)))
        return values

    def _check(self, values: np.ndarray, shape: tuple[int, int]) -> None:
        name = f"the proposer {getattr(self.function, '__name__', type(self.function).__name__)!r}"
        if values.shape != shape:
            raise InvalidInputError(
                f"{name} returned shape {values.shape}, not {shape}; return one row per image, and in it one "
                f"log-probability per label: {self.classes_.tolist()[:20]}"
            )
        if np.isnan(values).any() or np.isposinf(values).any():
            raise InvalidInputError(f"{name} returned nan or inf; log-probabilities are finite or -inf")
        if (logsumexp(values, axis=1) > np.log1p(ROUNDING)).any():
            raise InvalidInputError(
                f"{name} returned a row whose probabilities sum to more than one; return log-probabilities, not "
                "probabilities or logits"
            )


def accepts_gaps(proposer: Any) -> bool:
    """Tell whether a scikit-learn classifier, given or its parameter, is to judge for itself of nan in its input.

    A pipeline or another meta-estimator says nothing of its parts, so it is asked.
    """
    if not hasattr(proposer, "fit") or getattr(proposer, "takes_images", False):
        return False
    if isinstance(proposer, Pipeline | MetaEstimatorMixin) or not hasattr(proposer, "__sklearn_tags__"):
        return True
    return bool(get_tags(proposer).input_tags.allow_nan)


def is_trained(proposer: Any) -> bool:
    """Tell whether `fit` leaves a proposer as it is: a frozen classifier, or one that is no estimator.

    An estimator has `fit` and `get_params`, whether it is scikit-learn's or, as CatBoost's, has the same methods.
    """
    return isinstance(proposer, FrozenEstimator) or not (hasattr(proposer, "fit") and hasattr(proposer, "get_params"))


def with_labels(proposer: Any, labels: np.ndarray) -> Any:
    """The proposer of these labels `[C]`.

    One that goes by label names, as its `fit(None, labels)` and a `__sklearn_clone__` whose copies share the model
    tell, is not changed: a copy is told the labels. Any other has classes of its own, and only has to know these; it
    is told them if it has none yet.

    Raises
    ------
    InvalidInputError
        If it does not know one of them.
    """
    if hasattr(proposer, "fit") and is_trained(proposer) and not isinstance(proposer, FrozenEstimator):
        if hasattr(proposer, "__sklearn_clone__"):
            proposer = clone(proposer).fit(None, labels)
        elif not hasattr(proposer, "classes_"):
            proposer = proposer.fit(None, labels)
    column_of(proposer, labels)
    return proposer


def log_proba(proposer: Any, X: Any) -> np.ndarray:
    """Log-probabilities `[n, n_classes]`, at least `LOG_FLOOR`, by the best method the proposer has.

    Margins of a `decision_function` pass through a softmax; their temperature is left to the fusion.
    """
    if hasattr(proposer, "predict_log_proba"):
        with np.errstate(divide="ignore"):
            values = np.asarray(proposer.predict_log_proba(X), dtype=float)
    elif hasattr(proposer, "predict_proba"):
        with np.errstate(divide="ignore"):
            values = np.log(np.asarray(proposer.predict_proba(X), dtype=float))
    else:
        margin = np.asarray(proposer.decision_function(X), dtype=float)
        values = log_softmax(np.stack([-margin, margin], axis=1) / 2 if margin.ndim == 1 else margin, axis=1)
    return np.maximum(values, LOG_FLOOR)


def aligned_log_proba(proposer: Any, items: Any, classes: np.ndarray) -> np.ndarray:
    """Tier 1's log-probabilities `[n, C]` of n items, in the order of the classes `[C]`.

    Parameters
    ----------
    proposer : object
        Tier 1.
    items : Items, array or list of n images
        What it is asked about.
    classes : array `[C]`
        The labels that the columns shall stand for.
    """
    items = items if isinstance(items, Items) else Items(items, items)
    X = items.images if getattr(proposer, "takes_images", False) else rows_of(items.given)
    return log_proba(proposer, X)[:, column_of(proposer, classes)]


def rows_of(X: Any) -> Any:
    """The rows `[n, d]` that a scikit-learn classifier takes: a table as it is, images as flat float vectors."""
    if getattr(X, "ndim", 2) == 2 and hasattr(X, "shape"):
        return X
    array = np.asarray(X)
    return array.reshape(len(array), -1).astype(float, copy=False)


def column_of(proposer: Any, classes: Sequence[Label] | np.ndarray) -> np.ndarray:
    """Where a proposer keeps these classes among its columns, int `[C]`.

    Raises
    ------
    InvalidInputError
        If it does not know one of them.
    """
    position = {label: i for i, label in enumerate(np.asarray(proposer.classes_).tolist())}
    unknown = [label for label in np.asarray(classes).tolist() if label not in position]
    if unknown:
        raise InvalidInputError(f"label {unknown[0]!r} is not in the proposer's classes {list(position)[:20]}")
    return np.array([position[label] for label in np.asarray(classes).tolist()])


def shortlist(prior: np.ndarray, top_k: int | None) -> list[np.ndarray]:
    """The candidates of each image, best first: int arrays of class positions.

    Parameters
    ----------
    prior : float array `[n, C]`
        Tier 1's probabilities.
    top_k : int or None
        How many candidates; None for as many as it takes to leave at most `OPEN_MASS` outside.
    """
    order = np.argsort(-prior, axis=1, kind="stable")
    if top_k is not None:
        return list(order[:, :top_k])
    covered = np.take_along_axis(prior, order, axis=1).cumsum(axis=1)
    lengths = (covered < 1 - OPEN_MASS).sum(axis=1) + 1
    return [row[:k] for row, k in zip(order, lengths, strict=True)]
