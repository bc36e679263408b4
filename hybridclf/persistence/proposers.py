"""Tier 1 of a saved model: the default proposer as plain arrays, any other scikit-learn classifier by skops.

Plain arrays enter scikit-learn's objects through their constructors and public attributes, so every version of
scikit-learn reads them. A skops file keeps the private attributes of one version.
"""

import copy
import json
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import sklearn
from safetensors.numpy import load_file
from safetensors.numpy import save as dump_tensors
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from ..errors import SavedModelError
from ..proposer import default_proposer
from .compiled_estimators import check_indices
from .labels import describe_labels, restore_labels

__all__ = ["ARRAYS", "SKOPS", "dump_arrays", "dump_skops", "load_arrays", "load_skops"]

ARRAYS = "proposer.safetensors"
"""File name of the default proposer's arrays."""

SKOPS = "proposer.skops"
"""File name of any other scikit-learn classifier."""

_FITTED = {
    "standardscaler": ("mean_", "scale_", "var_", "n_samples_seen_"),
    "logisticregression": ("coef_", "intercept_", "n_iter_"),
}
_DESCRIBED = {"n_features_in_", "feature_names_in_", "classes_"}
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, BadZipFile, zlib.error)


# --- the default proposer ---------------------------------------------------------------------------------------------


def dump_arrays(proposer: Any) -> tuple[dict[str, Any], bytes] | None:
    """Describe a fitted default proposer by JSON and safetensors; None if they cannot hold all of it.

    Returns
    -------
    (dict, bytes) or None
        JSON of the changed parameters and classes, and the safetensors file of the fitted arrays.
    """
    plain = default_proposer()
    # the same steps of exactly the same types: a subclass may compute otherwise
    if not isinstance(proposer, Pipeline) or [(k, type(v)) for k, v in proposer.steps] != [
        (k, type(v)) for k, v in plain.steps
    ]:
        return None
    usual = plain.get_params()
    changed = {k: v for k, v in proposer.get_params().items() if "__" in k and v != usual[k]}
    arrays = {f"{step}.{name}": getattr(proposer[step], name, None) for step in _FITTED for name in _FITTED[step]}
    # every other fitted attribute means a version or option that this format does not know
    known = {step: {*vars(plain[step]), *names, *_DESCRIBED} for step, names in _FITTED.items()}
    if (
        not _is_plain(changed)
        or any(array is None or np.asarray(array).dtype.kind not in "iuf" for array in arrays.values())
        or any(vars(proposer[step]).keys() - known[step] for step in _FITTED)
    ):
        return None
    description = {"parameters": changed, "classes": describe_labels(proposer.classes_)}
    if hasattr(proposer, "feature_names_in_"):
        description["feature_names"] = proposer.feature_names_in_.tolist()
    return description, dump_tensors({k: v for name, array in arrays.items() for k, v in [_laid_out(name, array)]})


def _is_plain(value: Any) -> bool:
    """Tell whether a value survives JSON unchanged."""
    try:
        return bool(json.loads(json.dumps(value, default=lambda number: number.item())) == value)
    except (AttributeError, TypeError, ValueError):
        return False


def _laid_out(name: str, array: Any) -> tuple[str, np.ndarray]:
    """Name and C-ordered array to save: a Fortran-ordered matrix is saved as its transpose, under `name.T`."""
    array = np.asarray(array)
    # the memory order decides in which order a product sums, and so its last digits
    if array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous:
        return f"{name}.T", array.T
    return name, np.array(array, order="C")  # a copy: of a view, safetensors writes the memory under it


def load_arrays(folder: Path, saved: dict[str, Any], version: str | None) -> Pipeline:
    """Restore a default proposer from a `dump_arrays` result.

    Parameters
    ----------
    folder : path
        Folder of the saved model.
    saved : dict
        JSON part of the result.
    version : str or None
        scikit-learn's version at saving, for messages.

    Raises
    ------
    SavedModelError
        If the installed scikit-learn lacks one of the parameters, or the arrays do not fit together.
    """
    try:
        proposer = default_proposer().set_params(**saved["parameters"])
    except ValueError as error:
        raise _unreadable(folder / ARRAYS, error, version) from error
    arrays = load_file(folder / ARRAYS)
    for step, names in _FITTED.items():
        for name in names:
            key = f"{step}.{name}"
            value = arrays[f"{key}.T"].T if f"{key}.T" in arrays else arrays[key]
            setattr(proposer[step], name, value if value.ndim else value[()])  # 0-d arrays were numbers
    scaler, regression = proposer[0], proposer[-1]
    regression.classes_ = restore_labels(saved["classes"])
    scaler.n_features_in_ = regression.n_features_in_ = len(scaler.mean_)
    if "feature_names" in saved:
        scaler.feature_names_in_ = np.array(saved["feature_names"], dtype=object)
    # two classes share one row of coefficients; shapes are checked before scikit-learn multiplies by them
    n_rows = 1 if len(regression.classes_) == 2 else len(regression.classes_)
    if regression.coef_.shape != (n_rows, len(scaler.mean_)) or regression.intercept_.shape != (n_rows,):
        raise SavedModelError(f"{folder / ARRAYS} is damaged: its arrays do not fit together; save the model again")
    return proposer


# --- any other --------------------------------------------------------------------------------------------------------


def dump_skops(proposer: BaseEstimator) -> bytes:
    """Write a fitted classifier by skops, and read it back as a check; what it requests of metadata is left out.

    Raises
    ------
    SavedModelError
        If it cannot be written or read back.
    """
    import skops.io  # takes a second to import, and the default proposer does without it

    try:
        content = skops.io.dumps(_without_requests(proposer))
        skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    except Exception as error:  # a classifier's own objects may raise anything
        raise SavedModelError(
            f"the proposer {proposer!r} cannot be saved: {error}; leave out of it what cannot be kept in a file, "
            "such as a lambda, or name it by a spec string (an entry point of the group hybridclf.proposers)"
        ) from error
    return content


def _without_requests(proposer: BaseEstimator) -> BaseEstimator:
    """A copy of which no part has `set_fit_request` and the like set: each such request refers to its estimator."""
    memo: dict[int, Any] = {}
    copied: BaseEstimator = copy.deepcopy(proposer, memo)
    for part in memo.values():
        if isinstance(part, BaseEstimator):
            vars(part).pop("_metadata_request", None)
    return copied


def load_skops(folder: Path, trusted: Sequence[str], version: str | None) -> Any:
    """Load a classifier from a `dump_skops` file, if all its types are safe.

    Raises
    ------
    SavedModelError
        If the file cannot be read, or holds a type that is not scikit-learn's own, known to be safe or `trusted`.
    """
    import skops.io  # takes a second to import, and the default proposer does without it

    path = folder / SKOPS
    try:
        unknown = set(skops.io.get_untrusted_types(file=path)) - set(trusted)
        own = set(filter(_is_sklearns, unknown))
        if unknown == own:
            proposer = skops.io.load(path, trusted=[*trusted, *own])
            check_indices(proposer)
            return proposer
    except _DAMAGE as error:
        raise _unreadable(path, error, version) from error
    raise SavedModelError(
        f"{path} holds objects of types that are not known to be safe: {sorted(unknown - own)}; "
        f"if you trust where it comes from, load it with trusted={sorted(unknown - own)}"
    )


def _is_sklearns(name: str) -> bool:
    """Tell whether a name is a type of scikit-learn's own, or one of its scores for feature selection."""
    if name == "numpy.dtype":
        return True
    module, _, attribute = name.rpartition(".")
    if not module.startswith("sklearn.") or "test" in module:
        return False
    # scikit-learn's modules also import others' functions, such as os's: the object itself must be scikit-learn's
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    own = getattr(found, "__module__", "").startswith("sklearn.")
    return own and (isinstance(found, type) or module.startswith("sklearn.feature_selection."))


def _unreadable(path: Path, error: Exception, version: str | None) -> SavedModelError:
    """Error of an unreadable file; it names scikit-learn's version if another one saved the file."""
    if version not in (None, sklearn.__version__):
        return SavedModelError(
            f"{path} was saved under scikit-learn {version} and cannot be read under {sklearn.__version__}: {error}; "
            f'pip install "scikit-learn=={version}", or fit and save the model again'
        )
    return SavedModelError(f"{path} cannot be read: {error}; save the model again")
