"""scikit-learn classifiers by name, as proposers: "sklearn:SVC", "sklearn:RandomForestClassifier"."""

from sklearn.base import BaseEstimator
from sklearn.utils import all_estimators

from hybridclf.errors import UnknownSpecError

__all__ = ["load"]


def load(name: str) -> BaseEstimator:
    """Make an unfitted scikit-learn classifier with default parameters.

    Parameters
    ----------
    name : str
        Name of the class, such as "SVC".

    Returns
    -------
    BaseEstimator

    Raises
    ------
    UnknownSpecError
        If scikit-learn has no classifier of this name.

    Examples
    --------
    >>> load("SVC")
    SVC()
    """
    known = dict(all_estimators(type_filter="classifier"))
    if name not in known:
        raise UnknownSpecError(f"scikit-learn has no classifier {name!r}; it has {', '.join(known)}")
    return known[name]()
