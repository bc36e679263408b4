"""Classifying image files: one answer per file, unreadable ones included."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import gen_batches

from .errors import InvalidInputError
from .evidence import RerankResult
from .files import as_item, check_image_shape, image_paths, open_image
from .ports import Label

if TYPE_CHECKING:
    from .estimator import HybridClassifier

__all__ = ["FileAnswer", "Share", "classify_files"]

BATCH = 256
"""Files that are held in memory at a time."""


@dataclass(frozen=True)
class Share:
    """A label and its posterior."""

    label: Label
    probability: float


@dataclass(frozen=True)
class FileAnswer:
    """What came of one file: an answer, or only an error.

    Attributes
    ----------
    path : str
        The file.
    label : label or None
        The one with the highest posterior.
    probability : float or None
        That posterior.
    posterior : tuple of Share
        The few labels with the highest posterior, best first.
    evaluations, rows : int or None
        What the answer cost.
    stopped_by : str or None
        Why its re-ranking stopped, as in `RerankResult`.
    error : str or None
        Why there is no answer.
    """

    path: str
    label: Label | None = None
    probability: float | None = None
    posterior: tuple[Share, ...] = ()
    evaluations: int | None = None
    rows: int | None = None
    stopped_by: str | None = None
    error: str | None = None


def classify_files(clf: "HybridClassifier", paths: Iterable[str | Path], top: int = 3) -> Iterator[FileAnswer]:
    """Answer for every file, in order; a file that cannot be read gets an error and stops nothing.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted one.
    paths : paths
        Image files, or folders of them.
    top : int
        Labels to list with their posterior.

    Raises
    ------
    InvalidInputError
        If the classifier is none of images.
    """
    check_image_shape(clf.image_shape_)
    files = image_paths(paths)
    for batch in gen_batches(len(files), BATCH):
        yield from _answer_batch(clf, files[batch], top)


def _answer_batch(clf: "HybridClassifier", files: list[Path], top: int) -> list[FileAnswer]:
    items, answers = {}, {}
    for file in files:
        try:
            items[file] = as_item(open_image(file), clf.image_shape_, clf.pixel_range_)
        except InvalidInputError as error:
            answers[file] = FileAnswer(str(file), error=str(error))
    if items:
        images: Any = list(items.values())
        posterior, results = clf.decide(images if clf.image_shape_ is None else np.stack(images))
        for file, row, result in zip(items, posterior, results, strict=True):
            answers[file] = _answer(file, row, result, clf.classes_, top)
    return [answers[file] for file in files]


def _answer(file: Path, posterior: np.ndarray, result: RerankResult, classes: np.ndarray, top: int) -> FileAnswer:
    best = np.argsort(-posterior, kind="stable")[:top]
    shares = tuple(map(Share, classes[best].tolist(), posterior[best].tolist()))
    return FileAnswer(
        path=str(file),
        label=shares[0].label,
        probability=shares[0].probability,
        posterior=shares,
        evaluations=result.evaluations,
        rows=result.rows,
        stopped_by=result.stopped_by,
    )
