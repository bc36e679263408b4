"""Tier 1: from any proposer to log-probabilities, and from these to candidates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import plugins
from .errors import InvalidInputError, InvalidTypeError
from .ports import Label

__all__ = ["column_of", "default_proposer", "is_trained", "log_proba", "resolve_proposer", "shortlist"]

LOG_FLOOR = -30.0
"""Lowest log-probability taken from a proposer: forests and nearest neighbours say 0 where they mean "rarely"."""

OPEN_MASS = 1e-3
"""Prior mass that may stay outside the candidates where `top_k` is not given."""

_METHODS = ("predict_log_proba", "predict_proba", "decision_function")


def default_proposer() -> BaseEstimator:
    """Logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def resolve_proposer(proposer: Any) -> Any:
    """The proposer that the parameter stands for: a default, a spec string's, or a clone of the object given.

    Raises
    ------
    UnknownSpecError
        For a string that no adapter answers to.
    InvalidTypeError
        For an object with none of `predict_log_proba`, `predict_proba` and `decision_function`.
    """
    if proposer is None:
        return default_proposer()
    if isinstance(proposer, str):
        return plugins.load("proposer", proposer)
    if isinstance(proposer, type) or not any(hasattr(proposer, name) for name in _METHODS):
        raise InvalidTypeError(
            f"proposer must be a classifier with one of {', '.join(_METHODS)}, or a string such as "
            f'"sklearn:LogisticRegression"; got {proposer!r}'
        )
    return clone(proposer) if hasattr(proposer, "__sklearn_clone__") else proposer


def is_trained(proposer: Any) -> bool:
    """Whether `fit` leaves it as it is: frozen scikit-learn classifiers and anything without a `fit(X, y)`."""
    return isinstance(proposer, FrozenEstimator) or not isinstance(proposer, BaseEstimator)


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
