"""One answer per image file, unreadable ones included."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import gen_batches

from ..data.image_files import check_image_shape, image_paths, stretched, try_image
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..ports import Label
from ..reranking.evidence import RerankResult
from ..utils.bounds import check_whole

__all__ = ["FileAnswer", "LabelProbability", "answer_images", "classify_files", "errors_of_missing"]

BATCH = 256
"""Files that are held in memory at a time."""


@dataclass(frozen=True)
class LabelProbability:
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
    posterior : tuple of LabelProbability
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
    posterior: tuple[LabelProbability, ...] = ()
    evaluations: int | None = None
    rows: int | None = None
    stopped_by: str | None = None
    error: str | None = None


def errors_of_missing(files: Sequence[Path]) -> list[FileAnswer]:
    """The answers for files of which none is there, for which no model is needed; none at all if one is there."""
    if any(file.exists() and not file.is_dir() for file in files):
        return []
    return [FileAnswer(str(file), error=str(try_image(file))) for file in files]


def classify_files(clf: HybridClassifier, paths: Iterable[str | Path], top: int = 3) -> Iterator[FileAnswer]:
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
        If the classifier is none of images, or `top` no whole number of at least 1.
    """
    check_image_shape(clf.image_shape_)
    check_whole("top", top, 1)
    files = image_paths(paths)
    for batch in gen_batches(len(files), BATCH):
        yield from answer_images(clf, list(map(str, files[batch])), map(try_image, files[batch]), top)


def answer_images(
    clf: "HybridClassifier", paths: Sequence[str], images: Iterable[Image.Image | InvalidInputError], top: int
) -> list[FileAnswer]:
    """Answer for images that were read, or that could not be, all at once.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted one, of images.
    paths : sequence of str `[n]`
        What the answers call them.
    images : iterable `[n]`
        Each the image, or the error that says why there is none; each is made small as it comes.
    top : int
        Labels to list with their posterior.

    Returns
    -------
    list of FileAnswer `[n]`
    """
    read = [_small(clf, image) for image in images]
    items = [item for item in read if not isinstance(item, InvalidInputError)]
    decided = zip(*clf.decide(items), strict=True) if items else iter(())
    return [
        FileAnswer(path, error=str(item))
        if isinstance(item, InvalidInputError)
        else _answer(path, *next(decided), clf.classes_, top)
        for path, item in zip(paths, read, strict=True)
    ]


def _small(clf: "HybridClassifier", image: Image.Image | InvalidInputError) -> Image.Image | InvalidInputError:
    if isinstance(image, InvalidInputError):
        return image
    try:
        return stretched(image, clf.image_shape_)
    except InvalidInputError as error:
        return error


def _answer(path: str, posterior: np.ndarray, result: RerankResult, classes: np.ndarray, top: int) -> FileAnswer:
    best = np.argsort(-posterior, kind="stable")[:top]
    shares = tuple(map(LabelProbability, classes[best].tolist(), posterior[best].tolist()))
    return FileAnswer(
        path=path,
        label=shares[0].label,
        probability=shares[0].probability,
        posterior=shares,
        evaluations=result.evaluations,
        rows=result.rows,
        stopped_by=result.stopped_by,
    )
