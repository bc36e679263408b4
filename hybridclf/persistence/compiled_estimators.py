"""Checks of scikit-learn's trees and support vector machines from untrusted files.

Their compiled code follows indices and counts without checking bounds. A malicious file could so make a prediction read
memory outside the arrays.
"""

import gc
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["check_indices"]


def check_indices(estimator: Any) -> None:
    """Check every tree and support vector machine anywhere in an estimator.

    Raises
    ------
    ValueError
        If an index in one leads out of it.
    """
    # one case per compiled class of scikit-learn that reads indices from its arrays
    for part in _parts(estimator):
        name = f"{type(part).__module__}.{type(part).__qualname__}"
        if name == "sklearn.tree._tree.Tree":
            _check(_is_sound_tree(part), name)
        elif name.startswith("sklearn.neighbors.") and hasattr(part, "get_arrays"):
            _check(_is_sound_ball(*part.get_arrays()), name)
        elif hasattr(part, "_n_support"):
            _check(_is_sound_svm(part), name)
        elif hasattr(part, "_predictors"):  # histogram boosting
            for predictor in _parts(part._predictors):
                if hasattr(predictor, "raw_left_cat_bitsets"):
                    _check(_is_sound_predictor(predictor, part.n_features_in_), name)
        elif hasattr(part, "tree_"):
            _check(part.tree_.n_features == part.n_features_in_, name)
        if hasattr(part, "estimators_") and not hasattr(part, "estimators_features_"):
            _check(_share_their_width(part), name)


def _check(sound: Any, name: str) -> None:
    if not sound:
        raise ValueError(f"an index in a {name} leads out of it")


def _parts(root: Any) -> Iterator[Any]:
    """Walk an object and everything it refers to, each once; classes, modules and functions are skipped."""
    seen: dict[int, Any] = {}
    left = [root]
    while left:
        part = left.pop()
        if id(part) in seen or isinstance(part, type | ModuleType | FunctionType | BuiltinFunctionType):
            continue
        seen[id(part)] = part  # alive, so that no other object gets its id
        yield part
        # the garbage collector does not see into object arrays
        objects = part.ravel().tolist() if isinstance(part, np.ndarray) and part.dtype == object else []
        left += [*gc.get_referents(part), *objects]


def _share_their_width(ensemble: Any) -> bool:
    """Tell whether all trees of an ensemble were fitted on as many features as the ensemble itself."""
    members = [member for member in _parts(ensemble.estimators_) if hasattr(member, "tree_")]
    # forests and gradient boosting call the compiled tree directly; other ensembles go through a checked `predict`
    checked = type(ensemble).__module__ not in ("sklearn.ensemble._forest", "sklearn.ensemble._gb")
    return checked or all(member.n_features_in_ == ensemble.n_features_in_ for member in members)


def _is_sound_tree(tree: Any) -> bool:
    """Tell whether children come after their parents, so that no path is a cycle, and features are in range."""
    if not 0 < tree.node_count <= tree.capacity:
        return False
    number, left = np.arange(tree.node_count), tree.children_left
    inner = left != -1
    children = np.stack([left, tree.children_right])[:, inner]  # [2, inner nodes]
    features = tree.feature[inner]
    return bool(
        ((children > number[inner]) & (children < tree.node_count)).all()
        and ((features >= 0) & (features < tree.n_features)).all()
    )


def _is_sound_predictor(predictor: Any, n_features: int) -> bool:
    """Tell the same of a tree of histogram boosting, whose categorical splits also index bitsets."""
    nodes, n_bitsets = predictor.nodes, len(predictor.raw_left_cat_bitsets)
    number, inner = np.arange(len(nodes)), nodes["is_leaf"] == 0
    children = np.stack([nodes["left"], nodes["right"]]).astype(int)[:, inner]
    features, categorical = nodes["feature_idx"][inner], nodes["is_categorical"] != 0
    return bool(
        len(nodes)
        and ((children > number[inner]) & (children < len(nodes))).all()
        and ((features >= 0) & (features < n_features)).all()
        and (nodes["bitset_idx"][inner & categorical] < n_bitsets).all()
    )


def _is_sound_ball(data: Any, index: Any, nodes: Any, bounds: Any) -> bool:
    """Tell whether a ball tree or k-d tree refers to its own nodes and points alone."""
    data, index, nodes, bounds = map(np.asarray, (data, index, nodes, bounds))
    second_child = 2 * np.arange(len(nodes)) + 2  # nodes lie level by level: the children of i are 2i + 1 and 2i + 2
    inner = nodes["is_leaf"] == 0
    return bool(
        len(index) == len(data)
        and ((index >= 0) & (index < len(data))).all()
        and ((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"])).all()
        and (nodes["idx_end"] <= len(index)).all()
        and (second_child[inner] < len(nodes)).all()
        and bounds.shape[1:] == (len(nodes), data.shape[1])
    )


def _is_sound_svm(svm: Any) -> bool:
    """Tell whether the arrays of a support vector machine are as large as its counts of support vectors say."""
    counts, n = svm._n_support.astype(int), svm.support_vectors_.shape[0]
    if hasattr(svm, "classes_"):
        n_classes = len(svm.classes_)
        total, n_pairs = counts.sum(), n_classes * (n_classes - 1) // 2
    else:  # one-class and regression count the same vectors twice
        n_classes, total, n_pairs = 2, counts[0], 1
    return bool(
        len(counts) == n_classes
        and (counts >= 0).all()
        and total == n
        and svm._dual_coef_.shape == (n_classes - 1, n)
        and svm._intercept_.size == n_pairs
        and all(array.size in (0, n_pairs) for array in (svm._probA, svm._probB))
    )
