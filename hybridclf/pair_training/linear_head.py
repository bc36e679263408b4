"""Linear classifier on frozen features: logistic regression, regularised as held-in images find best."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from ..fitting.splitting import hold_out

__all__ = ["LinearHead", "fit_linear_head"]

INVERSE_REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of C that are tried, on standardised features."""

CHOSEN_ON = 0.2
"""Share of the training images that C is chosen on."""

MAX_ITER = 300
"""Most iterations of L-BFGS."""


class LinearHead(NamedTuple):
    """Linear classifier of features.

    Attributes
    ----------
    weight, bias : float array `[C, d]`, `[C]`
        The logits are features @ weight.T + bias.
    C : float
        Inverse strength of regularisation.
    """

    weight: np.ndarray
    bias: np.ndarray
    C: float


def fit_linear_head(features: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> LinearHead:
    """Fit logistic regression; C is the one of least log loss on a share of the images, and the fit is on all of them.

    Parameters
    ----------
    features : float array `[n, d]`
        Features.
    y : int array `[n]`
        Class numbers, all from 0 to C - 1.
    groups : array `[n]`
        Images of one group are on one side of the split.
    seed : int
        Decides the split.
    """
    kept, out = hold_out(y, CHOSEN_ON, seed, groups)
    losses = [_loss(features, y, kept, out, strength) for strength in INVERSE_REGULARISATION] if len(out) else [0.0]
    best = INVERSE_REGULARISATION[int(np.argmin(losses))]
    scaler, regression = _fitted(features, y, best)
    # (x - mean) / scale @ coef.T + intercept as one product of x
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:  # of two classes scikit-learn keeps the log-odds of the second alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearHead(weight, bias, best)


def _fitted(features: np.ndarray, y: np.ndarray, strength: float) -> tuple[Any, Any]:
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=strength, max_iter=MAX_ITER)
    return scaler, regression.fit(scaler.transform(features), y)


def _loss(features: np.ndarray, y: np.ndarray, kept: np.ndarray, out: np.ndarray, strength: float) -> float:
    """Log loss on the images `out` of a classifier fitted on the images `kept`."""
    scaler, regression = _fitted(features[kept], y[kept], strength)
    probability = regression.predict_proba(scaler.transform(features[out]))
    return float(log_loss(y[out], probability, labels=regression.classes_))
