"""`hybridclf.evaluate`: from a classifier and labelled images to a report."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from .. import __version__
from ..data.arrays import Items
from ..data.datasets import as_groups, numbered
from ..errors import InvalidInputError, InvalidTypeError
from ..estimator import HybridClassifier
from ..fitting.splitting import joined_copies, picture_groups
from ..fitting.validation import class_numbers
from ..reranking.trials import INFORMATIVE_TRIALS
from ..utils.bounds import check_number, check_whole, draw_seed
from .corruptions import corrupted_copies, require_kornia
from .figures import figure_names, make_figure
from .figures.robustness import robustness
from .gallery import examples_of
from .guarantee import Bound, check_bound
from .methods import TIER_1
from .recording import drift_of, pixel_range, record
from .report import Report, pairs
from .robustness import BaselineResult
from .scores import by_class, compare
from .shift import ShiftRow, shift_rows
from .shifted import Shifted
from .splitting import split_off
from .study import Study
from .verdict import verdict_of

__all__ = ["evaluate"]

TOP_K = 20
"""Candidates that are recorded where nobody says how many."""

FEWEST = 20
"""Images to calibrate on, and to test on, at least."""


def evaluate(
    clf: HybridClassifier,
    X: Any,
    y: Any,
    *,
    calibrate: float | tuple[Any, Any] | tuple[Any, Any, Any] = 0.3,
    groups: Any = None,
    trials: int = INFORMATIVE_TRIALS,
    top_k: int | None = None,
    max_loss: float | None = None,
    delta: float = 0.05,
    folder: str | Path | None = None,
    figures: Sequence[str] = (),
    shifted: Sequence[Shifted] = (),
    corrupt: bool = False,
    baselines: Mapping[str, Any] | None = None,
    known_baselines: Sequence[BaselineResult] = (),
    notes: Sequence[str] = (),
    random_state: int | np.random.RandomState | None = 0,
    progress: bool = False,
) -> Report:
    """Find out whether re-ranking pays on some labelled images, and with which settings.

    Both tiers are asked once about all images; every method is replayed from that recording: tier 1, tier 2 alone (all
    trials, the published stages, the published paired t-test), the classifier as it is, and both tiers with settings
    and a fusion for these images. What is fitted or chosen is so on a share of the images that no figure is of.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted classifier; it is not changed. It must not have been trained on the images.
    X : as for `HybridClassifier.predict`
        n images.
    y : array `[n]`
        Their labels, all of them known to the classifier, of at least two classes.
    calibrate : float, (X, y) or (X, y, groups)
        The share of the images to choose settings and calibrate on, in (0, 1), or other labelled images for that.
        Copies of one picture, and images of one group, are on one side.
    groups : array `[n]`, optional
        Groups of images that belong together, such as the film that a frame is from; None for an image without one.
        Copies of one picture are of one group as well. Intervals and tests allow for them, and a bound is tested on
        one image of each.
    trials : int
        Trials to record, at least 2. With the default what is replayed for a fitted classifier is what it answers.
    top_k : int, optional
        Candidates to record. Default: all classes, `TOP_K` at most.
    max_loss : float, optional
        Accuracy that stopping early may cost at most, in (0, 1), as for `HybridClassifier.calibrate`: settings that
        keep it are chosen on the images to calibrate on, and the report says what they cost and save on the others.
        The exhaustive answer is that of all recorded trials and candidates. Default: no bound.
    delta : float
        Probability that they cost more, in (0, 1).
    folder : path, optional
        Where the recording is kept, chunk by chunk: the same call goes on where it was interrupted, and a second one
        asks tier 2 no more, and tier 1 about corrupted copies alone. Default: nowhere.
    figures : sequence of str
        Names of further figures, of `hybridclf.evaluating.figures.FIGURES`; "all" is every one that there can be of
        the denoiser.
    shifted : sequence of Shifted
        Other images of the same classes, for accuracy and calibration under shift; nothing is fitted to them.
    corrupt : bool
        Ask about corrupted copies of some test images as well, by severity: noise, blur, weather, contrast and JPEG.
    baselines : dict of str to proposer, optional
        Other classifiers of the same labels, fitted. Under shift they answer the same images, and the line through
        their accuracies says what effective robustness is measured from.
    known_baselines : sequence of BaselineResult
        Accuracies of further baselines, from elsewhere.
    notes : sequence of str
        Sentences that the report is to repeat, and an error for too few images.
    random_state : int, RandomState or None
        Decides which images are calibrated on, and what is left to chance.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Report

    Raises
    ------
    InvalidTypeError
        If clf is no `HybridClassifier`.
    InvalidInputError
        For labels that it does not know, a single class, too few images (for the bound, too), no image with its right
        class among the candidates, an unknown or impossible figure, or a folder that holds another recording or cannot
        be written.

    Examples
    --------
    >>> print(hybridclf.evaluate(clf, images, labels).verdict)  # doctest: +SKIP
    Re-ranking adds 4.7 points (4.0 to 5.5) for 12 times tier 1's time: stop at 95 %, compare 5 classes.
    """
    _check_classifier(clf, shifted)
    names, n_baselines = figure_names(figures, clf.denoiser_), len(baselines or {}) + len(known_baselines)
    _check_comparison(n_baselines, bool(shifted), corrupt)
    bound = _checked_bound(trials, top_k, max_loss, delta)
    seed = draw_seed(random_state)
    notes = list(notes)
    with _explained_by(notes):
        (items, numbers, units), calibrating, n_left = _split(clf, _read(clf, X, y, groups), calibrate, seed)
        if n_left:
            notes.append(
                f"{n_left:,} images to calibrate on were left out: they, or others of their group, are tested on."
            )
        _check_enough(numbers, units, calibrating)
        if bound is not None:
            check_bound(clf, units[calibrating], bound)
    own = items.select(np.flatnonzero(calibrating)).images
    span = pixel_range(clf, own)
    recording = record(
        clf,
        items,
        numbers,
        span=span,
        trials=trials,
        top_k=min(top_k or TOP_K, len(clf.classes_)),
        groups=units,
        folder=None if folder is None else Path(folder),
        progress=progress,
    )
    drift = drift_of(clf, own, numbers[calibrating], span, progress)
    study = Study(clf, items, recording, calibrating, seed, progress, bound, drift)
    others = [*shifted, *(corrupted_copies(study) if corrupt else ())]
    kept = None if folder is None else Path(f"{folder}-shifted")
    shifts = shift_rows(study, others, kept, baselines, known_baselines) if others else []
    report = _report(study, names, notes, shifts)
    if any(row.beyond_line for row in shifts):
        report.figures.append(robustness(shifts, known_baselines))
    elif n_baselines:
        report.about["notes"].append(
            "All baselines have the same accuracy as given: no line can be drawn through them."
        )
    return report


def _check_classifier(clf: Any, shifted: Sequence[Shifted]) -> None:
    """Check that it is a fitted one, which knows the labels of all shifted images."""
    if not isinstance(clf, HybridClassifier):
        raise InvalidTypeError(f"evaluate takes a fitted HybridClassifier, got a {type(clf).__name__}")
    check_is_fitted(clf)
    for own in shifted:
        class_numbers(np.asarray(own.y), clf.classes_)


def _check_comparison(n_baselines: int, is_shifted: bool, corrupt: bool) -> None:
    """Check that so many baselines can be compared, and images corrupted, before minutes are spent."""
    if n_baselines and not (is_shifted or corrupt):
        raise InvalidInputError("baselines are compared under shift: give shifted images or corrupt as well")
    if n_baselines == 1:
        raise InvalidInputError("a line takes at least two baselines, and one is given; name more of them")
    if corrupt:
        require_kornia()


def _checked_bound(trials: int, top_k: int | None, max_loss: float | None, delta: float) -> Bound | None:
    """The bound that is asked for, if any; all of these numbers are in their ranges."""
    check_whole("trials", trials, 2)
    if top_k is not None:
        check_whole("top_k", top_k, 2)
    if max_loss is None:
        return None
    check_number("max_loss", max_loss, above=0, below=1)
    check_number("delta", delta, above=0, below=1)
    return Bound(max_loss, delta)


@contextmanager
def _explained_by(notes: Sequence[str]) -> Iterator[None]:
    """Add the notes to an error in a `with` block: images that were left out may be why there are too few."""
    try:
        yield
    except InvalidInputError as error:
        raise type(error)(f"{error}. {' '.join(notes)}" if notes else str(error)) from error


class _Labelled(NamedTuple):
    """n images as a classifier reads them, their class numbers `[n]`, and their groups `[n]` as given or by number.

    By number, copies of one picture are of one group.
    """

    items: Items
    y: np.ndarray
    groups: np.ndarray


def _read(clf: HybridClassifier, X: Any, y: Any, groups: Any = None) -> _Labelled:
    """The images with their groups as given; None for those of no group."""
    items = clf._read(X)
    y = column_or_1d(y)
    groups = np.full(len(y), None) if groups is None else as_groups(groups)
    check_consistent_length(items.images, y, groups)
    return _Labelled(items, class_numbers(y, clf.classes_), groups)


def _split(
    clf: HybridClassifier, tested: _Labelled, calibrate: float | tuple[Any, ...], seed: int
) -> tuple[_Labelled, np.ndarray, int]:
    """All images with group numbers, the mask of those to calibrate on, bool `[n]`, and how many were left out.

    Left out of other images to calibrate on are copies of those that are tested on, and images of their groups.
    """
    if isinstance(calibrate, tuple):
        more = _read(clf, *calibrate)
        items, y = _joined(tested.items, more.items), np.concatenate([tested.y, more.y])
        groups = numbered([*tested.groups.tolist(), *more.groups.tolist()])
        calibrating, unit = np.arange(len(items)) >= len(tested.y), joined_copies(items.images, groups)
        kept = np.flatnonzero(~calibrating | ~np.isin(unit, unit[: len(tested.y)]))
        groups = picture_groups(items.images, groups)
        own = _Labelled(items.select(kept), y[kept], groups[kept])
        return own, calibrating[kept], len(items) - len(kept)
    check_number("calibrate", calibrate, above=0, below=1)
    items, y = tested.items, tested.y
    groups = picture_groups(items.images, numbered(tested.groups.tolist()))
    mirror = bool(getattr(clf.denoiser_, "mirror", False))
    uses, classes = ("test on", "choose settings on"), clf.classes_.tolist()
    calibrating, _ = split_off(items.images, y, groups, calibrate, seed, classes, mirror, uses=uses)
    return _Labelled(items, y, groups), calibrating, 0


def _joined(first: Items, second: Items) -> Items:
    """Images for the test, then those to calibrate on."""
    if isinstance(first.images, np.ndarray):
        images = np.concatenate([first.images, second.images])
        if first.given is first.images:
            return Items(images, images)
        # of data frames by their own library, pandas or polars, which is imported as there are some
        library = sys.modules[type(first.given).__module__.partition(".")[0]]
        join = getattr(library, "concat", np.concatenate)
        return Items(join([first.given, second.given]), images)
    both = [*first.images, *second.images]
    return Items(both, both)


def _check_enough(y: np.ndarray, groups: np.ndarray, calibrating: np.ndarray) -> None:
    """Check that there are images of two classes and two groups on both sides, and enough of them."""
    for name, side in (("to test on", ~calibrating), ("to calibrate on", calibrating)):
        own = y[side]
        if len(np.unique(groups[side])) == 1 < len(own):
            raise InvalidInputError(f"all {len(own)} images {name} are of one group; give images of at least 2 groups")
        if len(np.unique(own)) < 2:
            raise InvalidInputError(
                f"all {len(own)} images {name} are of one class, of which nothing can be learned; give images of "
                "at least 2 classes"
            )
        if len(own) < FEWEST:
            raise InvalidInputError(
                f"there are {len(own)} images {name}, and at least {FEWEST} are needed; give more, or other images "
                "to calibrate on (--calibrate DATA; in Python another share, too)"
            )


def _report(study: Study, figures: Sequence[str], notes: Sequence[str], shifts: list[ShiftRow]) -> Report:
    """All that is computed from a study."""
    y, groups, hybrid, answers = study.test.y, study.test.groups, study.hybrid, study.answers
    compared = pairs(list(study.scores), hybrid)
    differences = [compare((a, b), answers[a], answers[b], y, groups) for a, b in compared]
    denoiser = study.clf.denoiser_
    about = {
        "model": f"{type(study.clf.proposer_).__name__} and {type(denoiser).__name__}",
        "labels": study.test.labels,
        "test_images": len(study.test),
        "calibration_images": len(study.calibration),
        "trials": study.recording.n_trials,
        "candidates": study.recording.candidates.shape[1],
        "right_among_candidates": float(study.test.hit.any(axis=1).mean()),
        "notes": list(notes),
        "device": str(denoiser.device),
        "versions": {"hybridclf": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    return Report(
        verdict=verdict_of(differences[0], study.costs[hybrid], study.settings, len(y)),
        recommended=study.settings,
        methods=list(study.scores.values()),
        costs=list(study.costs.values()),
        differences=differences,
        classes=by_class(answers[hybrid], answers[TIER_1], y, study.test.labels, groups),
        figures=[make_figure(name, study) for name in figures],
        examples=examples_of(study),
        about=about,
        shifts=shifts,
        guarantee=study.held_to_it,
    )
