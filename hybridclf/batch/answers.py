"""Answers of a classifier for image files, one per file, unreadable ones included."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import gen_batches

from ..data.decoding import shrunk, stretched
from ..data.image_files import check_image_shape, image_paths, try_image
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..ports import Label
from ..reranking.evidence import RerankResult
from ..utils.bounds import check_whole

__all__ = ["FileAnswer", "LabelProbability", "answer_images", "classify_files", "errors_of_missing"]

BATCH = 256
"""Files in memory at a time."""

EMPTY = (64, 64)
"""Size of the image that tells, where all others have failed, whether the model works at all."""

Decision = tuple[np.ndarray, RerankResult]
"""Posterior `[C]` of an image, and the result behind it."""


@dataclass(frozen=True)
class LabelProbability:
    """A label and its posterior."""

    label: Label
    probability: float


@dataclass(frozen=True)
class FileAnswer:
    """Answer for one file, or the error that stands for it.

    Attributes
    ----------
    path : str
        Path of the file.
    label : label or None
        Label with the highest posterior, or the classifier's `novel_label` if it rejects the image.
    probability : float or None
        Posterior of that label; None if the image is rejected.
    posterior : tuple of LabelProbability
        Labels with the highest posterior, best first.
    evaluations, rows : int or None
        Cost of the answer.
    stopped_by : str or None
        Reason why re-ranking stopped, as in `RerankResult`.
    novelty : float or None
        P-value that the image is of the model's classes; None for a model that rejects none.
    rejected : bool or None
        Whether that is so low that it is none of them; None for a model that rejects none.
    error : str or None
        Reason why there is no answer.
    """

    path: str
    label: Label | None = None
    probability: float | None = None
    posterior: tuple[LabelProbability, ...] = ()
    evaluations: int | None = None
    rows: int | None = None
    stopped_by: str | None = None
    novelty: float | None = None
    rejected: bool | None = None
    error: str | None = None


def errors_of_missing(files: Sequence[Path]) -> list[FileAnswer]:
    """Answer without a model if not a single file exists, by an error each; else return an empty list."""
    # os.path, as pathlib raises for a name that is too long or a folder that is closed
    if any(os.path.exists(file) and not os.path.isdir(file) for file in files):
        return []
    return [FileAnswer(str(file), error=str(try_image(file))) for file in files]


def classify_files(clf: HybridClassifier, paths: Iterable[str | Path], top: int = 3) -> Iterator[FileAnswer]:
    """Classify every file, in order; an unreadable file gets an error and stops nothing.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    paths : paths
        Image files, or folders of them.
    top : int
        Number of labels per answer, at least 1.

    Yields
    ------
    FileAnswer

    Raises
    ------
    InvalidInputError
        If the classifier takes no images, or `top` is no whole number of at least 1.
    """
    check_image_shape(clf.image_shape_)
    check_whole("top", top, 1)
    files = image_paths(paths)
    # images of one batch in memory at a time, read lazily by `map`
    for batch in gen_batches(len(files), BATCH):
        yield from answer_images(clf, list(map(str, files[batch])), map(try_image, files[batch]), top)


def answer_images(
    clf: "HybridClassifier", paths: Sequence[str], images: Iterable[Image.Image | InvalidInputError], top: int
) -> list[FileAnswer]:
    """Classify images together; an error in place of an image becomes its answer.

    Parameters
    ----------
    clf : HybridClassifier
        Fitted classifier of images.
    paths : sequence of str `[n]`
        Paths for the answers.
    images : iterable `[n]`
        An image or its error each. An image is stretched to the model's size as it comes, so large ones may be lazy.
    top : int
        Number of labels per answer.

    Returns
    -------
    list of FileAnswer `[n]`
    """
    read = [_small(clf, image) for image in images]
    decided = iter(_decide(clf, [item for item in read if not isinstance(item, InvalidInputError)]))
    # the answers are in step with the images among `read`
    outcomes = [item if isinstance(item, InvalidInputError) else next(decided) for item in read]
    return [
        FileAnswer(path, error=str(outcome) or type(outcome).__name__)
        if isinstance(outcome, Exception)
        else _answer(path, *outcome, clf, top)
        for path, outcome in zip(paths, outcomes, strict=True)
    ]


def _small(clf: "HybridClassifier", image: Image.Image | InvalidInputError) -> Image.Image | InvalidInputError:
    """Stretch an image to the model's size, or average it down to what its tiers need; an error is handed on."""
    if isinstance(image, InvalidInputError):
        return image
    try:
        return shrunk(stretched(image, clf.image_shape_), clf._least_side)
    except InvalidInputError as error:
        return error


def _decide(clf: "HybridClassifier", items: list[Image.Image]) -> list[Decision | Exception]:
    """Posterior `[C]` and result of each image. If a tier raises, each is asked by itself, and may give its own error.

    Raises
    ------
    Exception
        Whatever a tier raises on every image and on an empty one, too: the fault is not theirs.
    """
    if not items:
        return []
    try:
        return list(zip(*clf.decide(items), strict=True))
    except Exception:
        alone = [_try_to_decide(clf, item) for item in items]
        if all(isinstance(outcome, Exception) for outcome in alone):
            empty = shrunk(stretched(Image.new("RGB", EMPTY), clf.image_shape_), clf._least_side)
            if isinstance(_try_to_decide(clf, empty), Exception):
                raise
        return alone


def _try_to_decide(clf: "HybridClassifier", item: Image.Image) -> Decision | Exception:
    try:
        (posterior,), (result,) = clf.decide([item])
    except Exception as error:
        return error
    return posterior, result


def _answer(path: str, posterior: np.ndarray, result: RerankResult, clf: HybridClassifier, top: int) -> FileAnswer:
    # stable: equal posteriors stay in the order of the classes
    best = np.argsort(-posterior, kind="stable")[:top]
    likeliest = tuple(map(LabelProbability, clf.classes_[best].tolist(), posterior[best].tolist()))
    return FileAnswer(
        path=path,
        label=clf.novel_label if result.rejected else likeliest[0].label,
        probability=None if result.rejected else likeliest[0].probability,
        posterior=likeliest,
        evaluations=result.evaluations,
        rows=result.rows,
        stopped_by=result.stopped_by,
        novelty=result.novelty,
        rejected=None if clf.reject is None else result.rejected,
    )
