"""scikit-learn classifiers by name."""

import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

from hybridclf.errors import UnknownSpecError
from hybridclf_adapters.sklearn import load


def test_a_name_gives_an_unfitted_classifier_with_default_parameters() -> None:
    assert type(load("SVC")) is SVC
    assert load("RandomForestClassifier").get_params() == RandomForestClassifier().get_params()
    assert load("SVC") is not load("SVC")


@pytest.mark.parametrize("name", ["SVR", "svc", "NoSuchClassifier", ""])
def test_any_other_name_is_an_error_that_lists_the_classifiers(name: str) -> None:
    with pytest.raises(UnknownSpecError, match=f"no classifier '{name}'; it has .*LogisticRegression.*SVC"):
        load(name)
