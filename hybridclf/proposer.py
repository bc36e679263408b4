"""Tier 1: log-probabilities of any proposer, and the shortlist of candidates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from sklearn import get_config
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
    "check_answers",
    "column_of",
    "default_proposer",
    "input_of",
    "is_trained",
    "log_proba",
    "resolve_proposer",
    "rows_of",
    "shortlist",
    "with_labels",
]

LOG_FLOOR = -30.0
"""Lowest log-probability of a proposer. Forests and nearest neighbours say probability 0 for rare classes."""

OPEN_MASS = 1e-3
"""Most prior mass left outside the candidates if `top_k` is not given."""

ROUNDING = 0.01
"""Tolerance of a sum of probabilities above one, as half precision needs it."""

_METHODS = ("predict_log_proba", "predict_proba", "decision_function")


def default_proposer() -> BaseEstimator:
    """Make the default proposer, logistic regression on standardised features; weights are for the regression."""
    scaler, regression = StandardScaler(), LogisticRegression(max_iter=1000)
    if get_config()["enable_metadata_routing"]:
        scaler.set_fit_request(sample_weight=False), regression.set_fit_request(sample_weight=True)
    return make_pipeline(scaler, regression)


def resolve_proposer(proposer: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Resolve the parameter `proposer` to an object.

    Parameters
    ----------
    proposer : None, str, classifier or function
        None for the default, or a spec string. An object is cloned if it supports that.
    options : mapping, optional
        Options for an adapter, which gets those in its signature.

    Raises
    ------
    UnknownSpecError
        For a spec string without an adapter.
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
    """Check that an unfitted model which is no estimator takes images, as its `fit` then takes labels alone.

    Raises
    ------
    InvalidTypeError
        If it does not, as it can neither be cloned nor asked.
    """
    if not hasattr(proposer, "__sklearn_clone__") and not getattr(proposer, "takes_images", False):
        raise InvalidTypeError(
            f"proposer {proposer!r} is not fitted and cannot be cloned, since it has no get_params; let its class "
            "inherit from sklearn.base.BaseEstimator, or fit it and pass FrozenEstimator(proposer)"
        )


class FunctionProposer:
    """Proposer of a plain function; its columns are the labels of the first `fit`, in their order.

    Parameters
    ----------
    function : callable
        Function from n images, as the user passes them, to log-probabilities `[n, C]`, an array or a tensor; -inf is
        accepted.

    Attributes
    ----------
    classes_ : array `[C]`
        Labels of the columns.
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
        """Call the function on n images and check its log-probabilities, float `[n, C]`.

        Raises
        ------
        InvalidInputError
            For another shape, nan, inf, or rows whose probabilities sum to more than one.
        """
        values = self.function(X)
        # double first: numpy has no bfloat16
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
    """Tell whether a scikit-learn classifier may get nan, by its tags.

    A pipeline or another meta-estimator has no tag for its parts, so it may get nan and raise its own error.
    """
    if not hasattr(proposer, "fit") or getattr(proposer, "takes_images", False):
        return False
    if isinstance(proposer, Pipeline | MetaEstimatorMixin) or not hasattr(proposer, "__sklearn_tags__"):
        return True
    return bool(get_tags(proposer).input_tags.allow_nan)


def is_trained(proposer: Any) -> bool:
    """Tell whether a proposer is left as it is: a frozen classifier, or an object that is no estimator.

    An estimator has `fit` and `get_params`, be it scikit-learn's or another library's, such as CatBoost's.
    """
    return isinstance(proposer, FrozenEstimator) or not (hasattr(proposer, "fit") and hasattr(proposer, "get_params"))


def with_labels(proposer: Any, labels: np.ndarray) -> Any:
    """Adapt a proposer to labels `[C]`.

    A proposer that reads label names, with `fit(None, labels)` and `__sklearn_clone__`, is copied and fitted to them.
    Any other keeps its own classes, which must include the labels, or gets the labels if it has no classes yet.

    Raises
    ------
    InvalidInputError
        If the proposer lacks one of the labels.
    """
    if hasattr(proposer, "fit") and is_trained(proposer) and not isinstance(proposer, FrozenEstimator):
        # the user's own object must not change
        if hasattr(proposer, "__sklearn_clone__"):
            proposer = clone(proposer).fit(None, labels)
        elif not hasattr(proposer, "classes_"):
            proposer = proposer.fit(None, labels)
    column_of(proposer, labels)
    return proposer


def log_proba(proposer: Any, X: Any) -> np.ndarray:
    """Predict log-probabilities `[n, n_classes]`, at least `LOG_FLOOR`, by the best method the proposer has.

    Margins of a `decision_function` pass through a softmax, whose temperature is left to the fusion.

    Raises
    ------
    InvalidInputError
        If a probability is not a number, or the columns are not those of the classes.
    """
    if hasattr(proposer, "predict_log_proba"):
        with np.errstate(divide="ignore"):
            values = np.asarray(proposer.predict_log_proba(X), dtype=float)
    elif hasattr(proposer, "predict_proba"):
        with np.errstate(divide="ignore"):
            values = np.log(np.asarray(proposer.predict_proba(X), dtype=float))
    else:
        margin = np.asarray(proposer.decision_function(X), dtype=float)
        last = proposer.estimator if isinstance(proposer, FrozenEstimator) else proposer
        last = last[-1] if isinstance(last, Pipeline) else last
        if getattr(last, "decision_function_shape", "ovr") != "ovr":
            raise InvalidInputError(
                f"tier 1 ({type(proposer).__name__}) gives a margin for each pair of classes; set its "
                "decision_function_shape='ovr'"
            )
        # with two classes scikit-learn gives one margin m `[n]`; logits (-m/2, m/2) make it the log-odds
        values = log_softmax(np.stack([-margin, margin], axis=1) / 2 if margin.ndim == 1 else margin, axis=1)
    n_classes = len(getattr(proposer, "classes_", values.T))
    if values.ndim != 2 or values.shape[1] != n_classes:
        raise InvalidInputError(
            f"tier 1 ({type(proposer).__name__}) answers in the shape {values.shape}; one column for each of its "
            f"{n_classes} classes_ is wanted"
        )
    if (bad := np.isnan(values).any(axis=-1)).any():
        raise InvalidInputError(
            f"tier 1 ({type(proposer).__name__}) gives probabilities that are not numbers for {bad.sum()} of "
            f"{len(bad)} items, first for item {bad.argmax()}; look for gaps or overflow in its input"
        )
    return np.maximum(values, LOG_FLOOR)


def aligned_log_proba(proposer: Any, items: Any, classes: np.ndarray) -> np.ndarray:
    """Predict tier 1's log-probabilities with columns in the order of given classes.

    Parameters
    ----------
    proposer : object
        Tier 1.
    items : Items, array or list of n images
        Items to classify.
    classes : array `[C]`
        Labels of the result's columns.

    Returns
    -------
    float array `[n, C]`

    Raises
    ------
    InvalidInputError
        If the proposer lacks one of the classes.
    """
    items = items if isinstance(items, Items) else Items(items, items)
    return log_proba(proposer, input_of(proposer, items))[:, column_of(proposer, classes)]


def input_of(proposer: Any, items: Items) -> Any:
    """Convert items to what a proposer takes: images as they are, or rows `[n, d]`."""
    return items.images if getattr(proposer, "takes_images", False) else rows_of(items.given)


def check_answers(proposer: Any, items: Items, classes: np.ndarray) -> None:
    """Check that a trained proposer answers for a user's images, by asking it about the first two.

    Raises
    ------
    InvalidInputError
        If it raises an error; ours says what it was given.
    """
    try:
        aligned_log_proba(proposer, items.select(np.arange(min(2, len(items)))), classes)
    except InvalidInputError:
        raise
    except Exception as error:
        takes_images, shape = getattr(proposer, "takes_images", False), getattr(items.images, "shape", (0,))[1:]
        size = "images as they are" if len(shape) != 3 else "images of {}x{}x{}".format(*shape)
        given = size if takes_images or len(shape) != 3 else f"the flat pixels of {size}"
        raise InvalidInputError(
            f"tier 1 ({type(proposer).__name__}) does not answer for these items: {error}; it is given {given}. Give "
            "items, or image_shape, of the size that it was fitted on; or wrap it in an object with takes_images = True"
        ) from error


def rows_of(X: Any) -> Any:
    """Convert X to rows `[n, d]` for a scikit-learn classifier: a table as it is, images as flat float vectors."""
    if getattr(X, "ndim", 2) == 2 and hasattr(X, "shape"):
        return X
    array = np.asarray(X)
    return array.reshape(len(array), -1).astype(float, copy=False)


def column_of(proposer: Any, classes: Sequence[Label] | np.ndarray) -> np.ndarray:
    """Positions, int `[C]`, of some classes among a proposer's columns.

    Raises
    ------
    InvalidInputError
        If the proposer lacks one of the classes.
    """
    position = {label: i for i, label in enumerate(np.asarray(proposer.classes_).tolist())}
    unknown = [label for label in np.asarray(classes).tolist() if label not in position]
    if unknown:
        raise InvalidInputError(f"label {unknown[0]!r} is not in the proposer's classes {list(position)[:20]}")
    return np.array([position[label] for label in np.asarray(classes).tolist()])


def shortlist(prior: np.ndarray, top_k: int | None, most: int | None = None) -> list[np.ndarray]:
    """Choose the candidates of each image.

    Parameters
    ----------
    prior : float array `[n, C]`
        Tier 1's probabilities.
    top_k : int or None
        Number of candidates. None: as few as leave at most `OPEN_MASS` outside.
    most : int, optional
        Most candidates if `top_k` is None.

    Returns
    -------
    list of n int arrays `[k]`
        Class positions, best first; k differs by image if `top_k` is None.
    """
    order = np.argsort(-prior, axis=1, kind="stable")
    if top_k is not None:
        return list(order[:, :top_k])
    # a sorted prior (0.9, 0.0995, 0.0005) covers (0.9, 0.9995, 1): one length below 0.999, so 1 + 1 candidates
    covered = np.take_along_axis(prior, order, axis=1).cumsum(axis=1)
    lengths = (covered < 1 - OPEN_MASS).sum(axis=1) + 1
    return [row[: k if most is None else min(k, most)] for row, k in zip(order, lengths, strict=True)]
