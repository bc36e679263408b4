"""What every engine runs for a part: read, classify, write; and the engine that runs it in this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SavedModelError
from ..estimator import HybridClassifier
from .answers import answer_images
from .inputs import Part, read
from .output import fingerprint, write_part

__all__ = ["TOP", "Done", "Engine", "Job", "Worker", "local"]

TOP = 5
"""Labels that are listed with their posterior."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know, wherever it runs; all paths are absolute.

    Attributes
    ----------
    source : Path
        The folder that the parts' paths start from.
    output : Path
        The folder that the parts go to.
    model : Path
        The saved model.
    fingerprint : mapping of str to str
        Hash of each of its files.
    device : str or None
        Where to compute, as torch calls it; None: where the model says.
    """

    source: Path
    output: Path
    model: Path
    fingerprint: Mapping[str, str]
    device: str | None = None


@dataclass(frozen=True)
class Done:
    """A part that has been written: how many of its images were answered, how many not, and what they cost."""

    answered: int
    errors: int
    evaluations: int


Engine = Callable[[Job, Sequence[Part]], Iterator[Done]]
"""Runs a worker, or many, over the parts, and tells of each part once it is written."""


class Worker:
    """Does one part after the other.

    Parameters
    ----------
    job : Job
        What to do.

    Raises
    ------
    SavedModelError
        If the model is not the one that the job began with, or cannot be loaded.
    """

    def __init__(self, job: Job) -> None:
        if fingerprint(job.model) != job.fingerprint:
            raise SavedModelError(f"{job.model} is not what it was when the batch began; put it back and start again")
        self.job = job
        self.clf = HybridClassifier.load(job.model, device=job.device)

    def __call__(self, part: Part) -> Done:
        """Read, classify and write a part; done again, it is written again, the same."""
        paths = [path for path, _ in part.sources()]
        answers = answer_images(self.clf, paths, read(self.job.source, part), TOP)
        write_part(self.job.output, part, answers, self.clf.classes_)
        costs = [answer.evaluations for answer in answers if answer.evaluations is not None]
        return Done(len(costs), len(part) - len(costs), sum(costs))


def local(job: Job, parts: Sequence[Part]) -> Iterator[Done]:
    """The engine of one process, this one."""
    worker = Worker(job)
    yield from map(worker, parts)
