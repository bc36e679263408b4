"""Classifying image files: which classifier is asked, and one answer per file, unreadable ones included."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.utils import gen_batches

from .bounds import check_whole
from .data.image_files import check_image_shape, image_paths, stretched, try_image
from .errors import InvalidInputError
from .estimator import HybridClassifier
from .ports import Label
from .pretrained.catalog import DEFAULT_MODEL
from .reranking.evidence import RerankResult

__all__ = ["FileAnswer", "Share", "answer_images", "choose_classifier", "classify_files", "errors_of_missing"]

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


def choose_classifier(
    model: str | Path | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    proposer: str | None = None,
    denoiser: str | None = None,
    top_k: int | None = None,
    device: str | None = None,
) -> HybridClassifier:
    """A classifier that is ready: two tiers by name, a saved model or an embedded one, asked about labels.

    Parameters
    ----------
    model : str or path, optional
        An embedded model or the folder of a saved one. Default: `catalog.DEFAULT_MODEL`; labels need one.
    labels : sequence of C str, optional
        Labels to tell apart. Default: the model's own.
    template : str, optional
        Makes a prompt of a label; default: the model's own.
    proposer, denoiser : str, optional
        Spec strings of both tiers, in place of a model.
    top_k : int, optional
        Candidates that tier 1 hands over; default: as many as the model has it.
    device : str, optional
        "auto", or what torch calls it; default: the model's own.

    Raises
    ------
    InvalidInputError
        For a label twice, labels without a model, a model beside spec strings, one of these without the other or
        without labels, and whatever `HybridClassifier` refuses.
    """
    if labels is not None and len(set(labels)) < len(labels):  # a slip, where names are typed
        raise InvalidInputError(f"labels must be at least two different names, got one of them twice: {labels!r}")
    if proposer is not None or denoiser is not None:
        if proposer is None or denoiser is None or labels is None or model is not None:
            raise InvalidInputError(
                "tiers by name come as a pair, with labels and without a model: give proposer, denoiser and labels"
            )
        clf = HybridClassifier(proposer, denoiser, prompts=template, top_k=top_k, random_state=0)
        return clf.set_params(device=device or "auto").fit(None, labels)
    if model is None and labels is not None:
        raise InvalidInputError("labels need a model to tell them apart: give one, or a proposer and a denoiser")
    clf = HybridClassifier.from_pretrained(model or DEFAULT_MODEL, prompts=template, device=device)
    if top_k is not None:
        clf.set_params(top_k=top_k)
    return clf if labels is None else clf.with_labels(_own(labels, clf))


def _own(labels: Sequence[str], clf: HybridClassifier) -> list[Label]:
    """Labels as the classifier has them, numbers for example; others as they are."""
    known = {str(label): label for label in clf.classes_.tolist()}
    return [known.get(label, label) for label in labels]


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
    shares = tuple(map(Share, classes[best].tolist(), posterior[best].tolist()))
    return FileAnswer(
        path=path,
        label=shares[0].label,
        probability=shares[0].probability,
        posterior=shares,
        evaluations=result.evaluations,
        rows=result.rows,
        stopped_by=result.stopped_by,
    )
