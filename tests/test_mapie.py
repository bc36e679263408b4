"""MAPIE's prediction sets work on a fitted classifier as it is."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hybridclf import HybridClassifier

classification = pytest.importorskip("mapie.classification")


def test_split_conformal_sets_cover_what_they_say() -> None:
    X, y = load_digits(return_X_y=True)
    _, out = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    X, y = X[out] + 3 * np.random.default_rng(0).standard_normal((len(out), 64)), y[out]  # noisy, so that sets are long
    clf = HybridClassifier.from_pretrained("digits")
    sets = classification.SplitConformalClassifier(clf, confidence_level=0.9, conformity_score="lac", prefit=True)
    labels, members = sets.conformalize(X[:225], y[:225]).predict_set(X[225:])
    np.testing.assert_array_equal(labels, clf.predict(X[225:]))
    covered = members[np.arange(225), y[225:], 0].mean()
    assert 0.82 < covered < 0.97  # 0.9, three standard errors of 225 images beside 225 to calibrate on
