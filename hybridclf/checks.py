"""Checks of what users pass to the estimator, each with one error that says what to do."""

from typing import Any

import numpy as np

from .allocation import Allocation
from .errors import InvalidInputError, InvalidTypeError
from .objectives import resolve_objective, resolve_weighting

__all__ = ["check_batch_size", "check_classes", "check_labels", "check_parameters", "check_prompts", "class_numbers"]


def check_parameters(clf: Any) -> None:
    """Check the parameters of a `HybridClassifier`.

    Raises
    ------
    InvalidInputError
        For a value out of range.
    InvalidTypeError
        For an object of the wrong kind.
    """
    resolve_objective(clf.objective)
    resolve_weighting(clf.weighting)
    for name, lowest in (("top_k", 1), ("max_iter", 1), ("n_iter_no_change", 1)):
        value = getattr(clf, name)
        if value is not None and (not isinstance(value, int | np.integer) or value < lowest):
            raise InvalidInputError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
    check_batch_size(clf.batch_size)
    folds = isinstance(clf.cv, int | np.integer) and clf.cv >= 2
    if not folds and not (isinstance(clf.cv, float) and 0 < clf.cv < 1):
        raise InvalidInputError(f"cv must be a number of folds >= 2 or a share between 0 and 1, got {clf.cv!r}")
    if not 0 < clf.validation_fraction < 1:
        raise InvalidInputError(f"validation_fraction must lie between 0 and 1, got {clf.validation_fraction!r}")
    if clf.learning_rate <= 0 or clf.wrong_class_weight < 0:
        raise InvalidInputError(
            f"learning_rate must be above 0 and wrong_class_weight not below it, "
            f"got {clf.learning_rate!r} and {clf.wrong_class_weight!r}"
        )
    if clf.architecture not in ("auto", "mlp", "unet"):
        raise InvalidInputError(f'architecture must be "auto", "mlp" or "unet", got {clf.architecture!r}')
    if clf.allocation is not None and not isinstance(clf.allocation, Allocation):
        raise InvalidTypeError(
            f"allocation must be an object such as Race() or Staged((5, 1), (50, 500)), got {clf.allocation!r}"
        )
    _check_dtype(clf.dtype, clf.denoiser)
    check_prompts(clf.prompts)
    if clf.image_shape is not None and not _is_shape(clf.image_shape):
        raise InvalidInputError(f"image_shape must be (H, W) or (H, W, C), got {clf.image_shape!r}")


def check_batch_size(batch_size: Any) -> None:
    """Check a denoiser's batch size.

    Raises
    ------
    InvalidInputError
        For anything but a whole number of at least 1, "auto" and None.
    """
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool) and batch_size >= 1
    if not whole and batch_size not in (None, "auto"):
        raise InvalidInputError(f'batch_size must be a whole number of at least 1, "auto" or None, got {batch_size!r}')


def _check_dtype(dtype: Any, denoiser: Any) -> None:
    if dtype not in (None, "float64", "float32", "bfloat16", "float16"):
        raise InvalidInputError(f'dtype must be None, "float64", "float32", "bfloat16" or "float16", got {dtype!r}')
    if dtype == "float64" and isinstance(denoiser, str):
        raise InvalidInputError(
            "dtype='float64' is for a denoiser that is trained here; one that is named computes in "
            f'"float32", "bfloat16" or "float16": choose one of these for {denoiser!r}'
        )


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple | list)
        and len(shape) in (2, 3)
        and all(isinstance(side, int | np.integer) and side >= 1 for side in shape)
    )


def check_prompts(prompts: Any) -> None:
    """Check that prompts are one template or several, or None.

    Raises
    ------
    InvalidInputError
        If not.
    """
    templates = [prompts] if isinstance(prompts, str) else prompts
    if templates is None:
        return
    if not isinstance(templates, list | tuple) or not templates or not all(map(_is_template, templates)):
        raise InvalidInputError(
            "prompts must be a template with {} where the label goes, such as 'a photo of a {}.', or a list of them; "
            f"got {prompts!r}"
        )


def _is_template(template: Any) -> bool:
    return isinstance(template, str) and "{}" in template


def check_labels(labels: Any) -> np.ndarray:
    """Label names as the classes `[C]` that they ask for, in their order.

    Raises
    ------
    InvalidInputError
        For fewer than two, for one twice, or for one without a letter.
    """
    names = [] if labels is None or isinstance(labels, str) else list(labels)
    if len(names) < 2 or len(set(names)) != len(names):
        raise InvalidInputError(f"labels must be at least two different names, got {labels!r}")
    if any(isinstance(name, str) and not name.strip() for name in names):
        raise InvalidInputError(f"a label is empty, got {names!r}; give every class a name")
    return np.asarray(names)


def class_numbers(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Positions `[n]` of labels `[n]` among the classes `[C]`.

    Raises
    ------
    InvalidInputError
        For a label that is not in the classes.
    """
    number = {label: i for i, label in enumerate(classes.tolist())}
    unknown = [label for label in y.tolist() if label not in number]
    if unknown:
        raise InvalidInputError(f"label {unknown[0]!r} is not in the classes {classes.tolist()[:20]}")
    return np.array([number[label] for label in y.tolist()])


def check_classes(classes: np.ndarray, numbers: np.ndarray, trains: bool) -> None:
    """Check that there are classes enough, and images of each if a denoiser is to be trained.

    Raises
    ------
    InvalidInputError
        If not.
    """
    if len(classes) < 2:
        raise InvalidInputError(f"y holds the one class {classes.tolist()[0]!r}; a classifier needs at least 2 classes")
    missing = np.setdiff1d(np.arange(len(classes)), numbers)
    if trains and len(missing):
        raise InvalidInputError(
            f"no image of class {classes.tolist()[missing[0]]!r}: a denoiser cannot be trained for a class it never saw"
        )
