"""Worker of a batch job, which reads, classifies and writes a part, and the engine of a single process."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..data.decoders import DECODE_SECONDS, Decoders
from ..devices import precision_of
from ..errors import HybridClfError, SavedModelError
from ..estimator import HybridClassifier
from ..fitting.outliers import check_novel_label
from .answers import answer_images
from .folders import GO_ON, Folder
from .inputs import Part, Reader
from .output import fingerprint, part_name, write_part

__all__ = ["TOP", "Done", "Engine", "Job", "Worker", "local"]

TOP = 5
"""Labels per row, with their posterior."""


@dataclass(frozen=True)
class Job:
    """Job of a worker, on any machine; all paths are absolute.

    Attributes
    ----------
    source : Folder
        Folder of the parts' paths.
    output : Folder
        Folder of the written parts.
    model : Path
        Folder of the saved model.
    fingerprint : mapping of str to str
        Hash of each of the model's files.
    device : str or None
        Device by torch's name; None: the model's own.
    decode_seconds : float
        Longest time to decode one image; beyond it the image gets an error.
    """

    source: Folder
    output: Folder
    model: Path
    fingerprint: Mapping[str, str]
    device: str | None = None
    decode_seconds: float = DECODE_SECONDS


@dataclass(frozen=True)
class Done:
    """Figures of a written part: images answered, images with an error, and evaluations."""

    answered: int
    errors: int
    evaluations: int


Engine = Callable[[Job, Sequence[Part]], Iterator[Done]]
"""Function that runs one worker or many over the parts, and yields each part's figures once it is written."""


class Worker:
    """Worker with a loaded model that does one part per call.

    Parameters
    ----------
    job : Job
        Paths and device.

    Raises
    ------
    SavedModelError
        If the model has changed since the job began, or cannot be loaded.
    InvalidInputError
        For a `novel_label` of another kind than the classes.
    """

    def __init__(self, job: Job) -> None:
        # a model retrained during the batch would mix answers of two models
        if fingerprint(job.model) != job.fingerprint:
            raise SavedModelError(f"{job.model} is not what it was when the batch began; put it back and start again")
        self.job = job
        self.clf = HybridClassifier.load(job.model, device=job.device)
        if self.clf.reject is not None:
            check_novel_label(self.clf.novel_label, self.clf.classes_)
        decoders = Decoders(1, job.decode_seconds, Image.MAX_IMAGE_PIXELS or sys.maxsize)
        decode = partial(decoders.decode, shape=self.clf.image_shape_, side=self.clf._least_side)
        self._reader = Reader(job.source, decode)
        self._precision = precision_of(self.clf.denoiser_)

    def __call__(self, part: Part) -> Done:
        """Read, classify and write a part; a repeated call writes the same rows again.

        Raises
        ------
        HybridClfError
            If the input or the output fails, or a tier does on every image.
        """
        paths = [path for path, _ in part.sources()]
        try:
            answers = answer_images(self.clf, paths, self._reader.read(part), TOP)
        except HybridClfError:
            raise
        except Exception as error:
            raise HybridClfError(
                f"no image of {part_name(part.number)} is answered: {type(error).__name__}: {error}; {GO_ON}"
            ) from error
        write_part(self.job.output, part, answers, self.clf.classes_, self._precision)
        costs = [answer.evaluations for answer in answers if answer.evaluations is not None]
        return Done(len(costs), len(part) - len(costs), sum(costs))


def local(job: Job, parts: Sequence[Part]) -> Iterator[Done]:
    """Engine of this process alone."""
    worker = Worker(job)
    yield from map(worker, parts)
