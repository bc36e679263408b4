"""scikit-learn's own checks of an estimator, none of them expected to fail."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from hybridclf import HybridClassifier, Race
from hybridclf.fitting import calibration

TRAINS_LONG = "check_class_weight_classifiers"
"""The check that sets `max_iter` to 1,000: as long as all others together."""


def checks(clf: HybridClassifier) -> list[Any]:
    """A parameter for each check of an estimator: `check()` raises where it fails.

    Of those of read-only arrays the one in float32 is enough by default.
    """
    return [
        pytest.param(
            partial(check, estimator),
            id=check.func.__name__,
            marks=[pytest.mark.slow]
            if check.func.__name__ == TRAINS_LONG or check.keywords == {"readonly_memmap": True}
            else [],
        )
        for estimator, check in estimator_checks_generator(clf)
    ]


@pytest.mark.parametrize("check", checks(HybridClassifier(allocation=Race(max_trials=16), max_iter=2, cv=2)))
def test_a_briefly_trained_classifier_passes(check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SHARPNESS", {0: 1.0})  # more than a hundred fits: no replays of others
    check()  # unittest's SkipTest, where SCIPY_ARRAY_API is not set, skips it here too


@pytest.mark.slow
def test_as_it_is_it_passes_all() -> None:
    results = check_estimator(HybridClassifier(), expected_failed_checks=None, on_skip=None, on_fail="raise")
    assert len(results) > 50
    not_passed = {result["check_name"]: result["status"] for result in results if result["status"] != "passed"}
    assert not_passed in ({}, {"check_array_api_input": "skipped"})  # which needs SCIPY_ARRAY_API to be set
