"""Metadata of `HybridClassifier.fit`: weights, groups, and further arguments of the proposer and the splitter."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.utils import compute_sample_weight
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import _check_method_params, check_consistent_length

from ..data.datasets import without_gaps
from ..errors import InvalidInputError, InvalidTypeError
from ..proposer import is_trained
from .tier_fitter import weight_parameter

__all__ = ["Metadata", "check_taken", "metadata_of", "router_of", "weights_of"]


class Metadata(NamedTuple):
    """Arguments of `fit` beside X and y.

    Attributes
    ----------
    weight : float array `[n]` or None
        Weights of the items, `class_weight` included.
    groups : array `[n]` or None
        Items of one group are held out together.
    proposer : dict
        Further arguments of the proposer's `fit`.
    """

    weight: np.ndarray | None
    groups: np.ndarray | None
    proposer: dict[str, Any]

    def select(self, kept: np.ndarray, n: int) -> "Metadata":
        """The metadata of the items at these positions, of n."""
        weight, groups = (None if v is None else v[kept] for v in (self.weight, self.groups))
        return Metadata(weight, groups, _check_method_params(np.empty(n), self.proposer, kept))


def router_of(clf: Any) -> MetadataRouter:
    """Routing of metadata to the classifier itself, the proposer's `fit` and the splitter's `split`."""
    router = MetadataRouter(owner=clf).add_self_request(clf)
    if hasattr(clf.proposer, "fit"):
        router.add(proposer=clf.proposer, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
    if hasattr(clf.cv, "split"):
        router.add(splitter=clf.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
    return router


def metadata_of(clf: Any, params: dict[str, Any], y: np.ndarray) -> Metadata:
    """The metadata of a call of `fit`.

    With scikit-learn's metadata routing it goes where it is requested. Without it `sample_weight` goes to both tiers
    and the fusion, `groups` to the splits, and anything else to the proposer's `fit`.

    Raises
    ------
    InvalidInputError
        For weights that are negative or no numbers.
    ValueError
        For lengths that differ from that of y.
    """
    params = {name: value for name, value in params.items() if value is not None}
    given, groups = params.get("sample_weight"), params.get("groups")
    if get_config()["enable_metadata_routing"]:
        # with no metadata at all scikit-learn gives no mapping
        routed = process_routing(clf, "fit", **params) if params else {}
        proposer = dict(routed["proposer"]["fit"]) if "proposer" in routed else {}
        groups = routed["splitter"]["split"].get("groups", groups) if "splitter" in routed else groups
        if "sample_weight" in proposer:  # under a name of its own they are other weights than the classifier's
            proposer["sample_weight"] = weights_of(proposer["sample_weight"], clf.class_weight, y)
    else:
        proposer = {name: value for name, value in params.items() if name not in ("sample_weight", "groups")}
    if groups is not None:
        check_consistent_length(y, groups)
        groups = without_gaps(groups)
    return Metadata(weights_of(given, clf.class_weight, y), groups, proposer)


def check_taken(proposer: Any, metadata: Metadata) -> None:
    """Check that something takes the arguments of `fit`, and warn of weights that the proposer does not take.

    Raises
    ------
    InvalidTypeError
        For arguments of a proposer that is not fitted.
    """
    if is_trained(proposer):
        if metadata.proposer:
            raise InvalidTypeError(
                f"fit got {', '.join(metadata.proposer)}, which nothing takes, since the proposer is trained already; "
                "leave that out, or mend its name if it is a slip"
            )
    elif metadata.weight is not None and not (weight_parameter(proposer) or "sample_weight" in metadata.proposer):
        warnings.warn(
            f"{type(proposer).__name__} does not take sample_weight (or does not request it): weights and class_weight "
            "count for tier 2 and the fusion alone",
            stacklevel=5,
        )


def weights_of(given: Any, class_weight: Any, y: np.ndarray) -> np.ndarray | None:
    """Weights `[n]` of the items; None if all count alike."""
    if given is None and class_weight is None:
        return None
    try:
        weight = np.ones(len(y)) if given is None else np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"sample_weight must be one number per item, got {given!r}") from error
    check_consistent_length(y, weight)
    if weight.ndim != 1 or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise InvalidInputError("sample_weight must be one number per item, of at least zero, not all of them zero")
    if class_weight is None:
        return weight
    of_class = np.zeros(len(y))
    # an item of weight 0 does not count for its class either; a dict may name its class all the same
    counted = weight > 0 if isinstance(class_weight, str) else np.ones(len(y), dtype=bool)
    of_class[counted] = compute_sample_weight(class_weight, y[counted])
    if not np.isfinite(of_class).all() or (of_class < 0).any() or not (weight * of_class).any():
        raise InvalidInputError(f"class_weight must have weights of at least zero, not all zero, got {class_weight!r}")
    return weight * of_class
