"""scikit-learn's own checks of an estimator, none of them expected to fail."""

import pytest
from sklearn.utils.estimator_checks import check_estimator

from hybridclf import HybridClassifier
from hybridclf.fitting import calibration


@pytest.mark.parametrize(
    "clf",
    [HybridClassifier(max_iter=2, cv=2), pytest.param(HybridClassifier(), marks=pytest.mark.slow)],
    ids=["briefly trained", "as it is"],
)
def test_check_estimator(clf: HybridClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    if clf.max_iter == 2:  # hundreds of fits: most of each is replays of other sharpnesses
        monkeypatch.setattr(calibration, "SHARPNESS", {0: 1.0})
    results = check_estimator(clf, expected_failed_checks=None, on_skip=None, on_fail="raise")
    assert len(results) > 50
    not_passed = {result["check_name"]: result["status"] for result in results if result["status"] != "passed"}
    assert not_passed in ({}, {"check_array_api_input": "skipped"})  # which needs SCIPY_ARRAY_API to be set
