"""scikit-learn's own checks of an estimator; one of weights is expected to fail."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from hybridclf import HybridClassifier, Race
from hybridclf.fitting import calibration

TRAINS_LONG = "check_class_weight_classifiers"
"""The check that sets `max_iter` to 1,000: as long as all others together."""

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "folds and minibatches of repeated rows are others than of weights"
}

TAKES_GAPS = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def checks(clf: HybridClassifier) -> list[Any]:
    """A parameter for each check of an estimator: `check()` raises where it fails.

    Of those of read-only arrays the one in float32 is enough by default.
    """
    return [
        pytest.param(
            partial(check, estimator),
            id=check.func.__name__,
            marks=_marks(check),
        )
        for estimator, check in estimator_checks_generator(clf)
    ]


def _marks(check: Any) -> list[pytest.MarkDecorator]:
    name = check.func.__name__
    if name in EXPECTED:
        return [pytest.mark.xfail(reason=EXPECTED[name], strict=True)]
    return [pytest.mark.slow] if name == TRAINS_LONG or check.keywords == {"readonly_memmap": True} else []


@pytest.mark.parametrize("check", checks(HybridClassifier(allocation=Race(max_trials=16), max_iter=2, cv=2)))
def test_a_briefly_trained_classifier_passes(check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SHARPNESS", {0: 1.0})  # more than a hundred fits: no replays of others
    check()  # unittest's SkipTest, where SCIPY_ARRAY_API is not set, skips it here too


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", checks(HybridClassifier(TAKES_GAPS, allocation=Race(max_trials=16), max_iter=1, cv=0.3))
)
def test_one_whose_tier_1_takes_gaps_passes(check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SHARPNESS", {0: 1.0})
    check()


@pytest.mark.slow
def test_as_it_is_it_passes_all() -> None:
    results = check_estimator(HybridClassifier(), expected_failed_checks=EXPECTED, on_skip=None, on_fail="raise")
    assert len(results) > 50
    not_passed = {result["check_name"]: result["status"] for result in results if result["status"] != "passed"}
    not_passed.pop("check_array_api_input", None)  # skipped, unless SCIPY_ARRAY_API is set
    assert not_passed == dict.fromkeys(EXPECTED, "xfail")
