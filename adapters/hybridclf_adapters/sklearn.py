"""scikit-learn classifiers by name, as proposers: "sklearn:SVC", "sklearn:RandomForestClassifier"."""

from sklearn.base import BaseEstimator
from sklearn.utils import all_estimators

from hybridclf.errors import UnknownSpecError

__all__ = ["load"]


def load(name: str) -> BaseEstimator:
    """The unfitted scikit-learn classifier of that class name, with default parameters.

    Raises
    ------
    UnknownSpecError
        If scikit-learn has no classifier of that name.
    """
    known = dict(all_estimators(type_filter="classifier"))
    if name not in known:
        raise UnknownSpecError(f"scikit-learn has no classifier {name!r}; it has {', '.join(known)}")
    return known[name]()
