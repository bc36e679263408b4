"""The linear classifier on features equals scikit-learn's on standardised ones."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridclf.pair_training.linear_head import INVERSE_REGULARISATION, MAX_ITER, fit_linear_head


def clouds(n_classes: int, n: int = 60, d: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Features of different scales and means, whose classes overlap."""
    rng = np.random.default_rng(0)
    y = np.arange(n * n_classes) % n_classes
    centres = rng.normal(0, 0.6, (n_classes, d))
    scales = np.geomspace(0.1, 10, d)
    return ((centres[y] + rng.normal(size=(len(y), d))) * scales + scales).astype(np.float32), y


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_scikit_learns(n_classes: int) -> None:
    X, y = clouds(n_classes)
    head = fit_linear_head(X, y, np.arange(len(y)), seed=0)
    assert head.C in INVERSE_REGULARISATION and head.weight.shape == (n_classes, X.shape[1])
    logits = X @ head.weight.T + head.bias
    probability = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=head.C, max_iter=MAX_ITER)).fit(X, y)
    np.testing.assert_allclose(probability, reference.predict_proba(X), atol=1e-4)


def test_noise_is_regularised_more_than_what_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    X, y = clouds(2, n=100)
    apart = np.where(y[:, None] == 1, 3.0, -3.0) + rng.normal(size=X.shape)
    noise = rng.normal(size=(len(y), 300))  # more features than images: without regularisation all are learnt by heart
    groups = np.arange(len(y))
    assert fit_linear_head(noise, y, groups, seed=0).C < fit_linear_head(apart, y, groups, seed=0).C


def test_one_image_a_class_but_one() -> None:
    X, y = clouds(3)
    head = fit_linear_head(X[:4], y[:4], np.arange(4), seed=0)
    assert np.isfinite(head.weight).all() and head.weight.shape == (3, X.shape[1])
