"""Checks of the estimator's parameters and labels, each with one error that says what to do."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..denoising.batch_size import check_batch_size
from ..denoising.objectives import resolve_objective
from ..denoising.weighting import resolve_weighting
from ..errors import InvalidInputError
from ..reranking.allocation import check_allocation
from ..utils.bounds import check_number, check_whole, is_whole
from ..utils.names import told_apart

__all__ = ["check_classes", "check_labels", "check_parameters", "check_prompts", "class_numbers", "warn_of_scale"]

SPREAD = 5.0
"""Factor by which the standard deviation of images may differ from that of a denoiser's training images."""

SCALE_IMAGES = 200
"""Images that the standard deviation is taken of."""


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
    if clf.top_k is not None:
        check_whole("top_k", clf.top_k, 1)
    check_whole("max_iter", clf.max_iter, 1)
    check_whole("n_iter_no_change", clf.n_iter_no_change, 1)
    check_batch_size(clf.batch_size)
    _check_cv(clf.cv)
    check_number("validation_fraction", clf.validation_fraction, above=0, below=1)
    check_number("learning_rate", clf.learning_rate, above=0)
    check_number("wrong_class_weight", clf.wrong_class_weight, at_least=0)
    if clf.architecture not in ("auto", "mlp", "unet"):
        raise InvalidInputError(f'architecture must be "auto", "mlp" or "unet", got {clf.architecture!r}')
    _check_class_weight(clf.class_weight)
    if clf.n_jobs is not None and not (is_whole(clf.n_jobs, -(2**31)) and clf.n_jobs):
        raise InvalidInputError(f"n_jobs must be None or a whole number other than 0, got {clf.n_jobs!r}")
    check_allocation(clf.allocation)
    check_dtype(clf.dtype, clf.denoiser)
    if clf.reject is not None:
        check_number("reject", clf.reject, above=0, below=1)
    if not isinstance(clf.novel_label, str | int | float | np.number | None):
        raise InvalidInputError(f"novel_label must be a text, a number or None, got {clf.novel_label!r}")
    check_prompts(clf.prompts)
    shape = clf.image_shape
    listed = isinstance(shape, tuple | list) and len(shape) in (2, 3) and all(is_whole(side, 1) for side in shape)
    if shape is not None and not listed:
        raise InvalidInputError(f"image_shape must be (H, W) or (H, W, C), got {shape!r}")


def _check_cv(cv: Any) -> None:
    share = isinstance(cv, float) and 0 < cv < 1
    splits = hasattr(cv, "split") or (isinstance(cv, Iterable) and not isinstance(cv, str))
    if not (is_whole(cv, 2) or share or splits):
        raise InvalidInputError(
            "cv must be a number of folds >= 2, a share between 0 and 1, a scikit-learn splitter such as GroupKFold(), "
            f"or an iterable of splits; got {cv!r}"
        )


def _check_class_weight(class_weight: Any) -> None:
    if class_weight not in (None, "balanced") and not isinstance(class_weight, dict):
        raise InvalidInputError(
            f'class_weight must be None, "balanced" or a dict of a weight per label, got {class_weight!r}'
        )


def check_dtype(dtype: Any, denoiser: Any) -> None:
    """Check the type that a denoiser computes in, a trained one or one named by a spec string.

    Raises
    ------
    InvalidInputError
        If it is none of the four, or one that a named denoiser does not compute in.
    """
    if dtype not in (None, "float64", "float32", "bfloat16", "float16"):
        raise InvalidInputError(f'dtype must be None, "float64", "float32", "bfloat16" or "float16", got {dtype!r}')
    if dtype == "float64" and isinstance(denoiser, str):
        raise InvalidInputError(
            "dtype='float64' is for a denoiser that is trained here; one that is named computes in "
            f'"float32", "bfloat16" or "float16": choose one of these for {denoiser!r}'
        )


def check_prompts(prompts: Any) -> None:
    """Check that prompts are one template or several, or None: strings with {}, or functions from a name to a prompt.

    Raises
    ------
    InvalidInputError
        If not.
    """
    templates = [prompts] if isinstance(prompts, str) or callable(prompts) else prompts
    if templates is None:
        return
    if not isinstance(templates, list | tuple) or not templates or not all(map(_is_template, templates)):
        raise InvalidInputError(
            "prompts must be a template with {} where the label goes, such as 'a photo of a {}.', a function from a "
            f"name to its prompt, or a list of them; got {prompts!r}"
        )


def _is_template(template: Any) -> bool:
    return callable(template) or (isinstance(template, str) and "{}" in template)


def check_labels(labels: Any) -> np.ndarray:
    """Label names as the classes `[C]` that they ask for, in their order.

    A name that repeats stands for that many classes, told apart by their positions: "crane (#134)", "crane (#517)".

    Raises
    ------
    InvalidInputError
        For fewer than two different ones, for one without a letter, or for one twice that is no string.
    """
    names = [] if labels is None or isinstance(labels, str) else list(labels)
    classes = told_apart(names)
    if len(set(names)) < 2 or len(set(classes)) != len(classes):
        raise InvalidInputError(f"labels must be at least two different names, got {labels!r}")
    if any(isinstance(name, str) and not name.strip() for name in names):
        raise InvalidInputError(f"a label is empty, got {names!r}; give every class a name")
    return np.asarray(classes)


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


def warn_of_scale(denoiser: Any, images: Any) -> None:
    """Warn if images hold numbers of another scale than those that a late-conditioned denoiser was trained on.

    Pixels of 0 to 1 are all one grey to a denoiser of 0 to 255, and re-ranking would seem not to pay.
    """
    if len(denoiser.shape) == 1:  # columns of a table may have any spread
        return
    times = float(denoiser.encode(images[:SCALE_IMAGES]).float().std())
    if not 1 / SPREAD <= times <= SPREAD:
        warnings.warn(
            f"the images vary {times:.2g} times as much as those that the denoiser was trained on (their standard "
            f"deviation was {float(np.mean(denoiser.scale)):.3g}); if that is another scale, such as 0 to 1 in place "
            "of 0 to 255, give both tiers images in the denoiser's",
            UserWarning,
            stacklevel=4,
        )
