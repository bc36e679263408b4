"""Classifying more images than one sitting takes: in parts that survive a kill, here or on a cluster."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import __version__, persistence
from ..data.image_files import check_image_shape
from ..errors import InvalidInputError
from ..pretrained.catalog import model_folder
from ..utils.progress import progress_bar
from .inputs import PART, Listing, Part, list_input
from .output import claim, fingerprint, is_done, remove_leftovers, totals
from .worker import TOP, Done, Engine, Job, Worker, local

__all__ = ["Done", "Engine", "Job", "Part", "Summary", "Worker", "local", "run"]


@dataclass(frozen=True)
class Summary:
    """What is in the output now, and what this run did for it.

    Attributes
    ----------
    output : str
        The folder.
    parts, images, errors : int
        Parts, rows, and rows among them with an error.
    evaluations : float or None
        Mean over the images that were answered; None if there is none.
    done_before : int
        Images whose parts were there when this run began.
    seconds : float
        This run's time, loading included.
    images_per_second : float
        Images that this run did over that time.
    """

    output: str
    parts: int
    images: int
    errors: int
    evaluations: float | None
    done_before: int
    seconds: float
    images_per_second: float


def run(
    source: str | Path,
    output: str | Path,
    model: str | Path,
    engine: Engine = local,
    progress: bool = False,
    device: str | None = None,
) -> Summary:
    """Classify all images of a source into Parquet parts; what is already there is not done again.

    Parameters
    ----------
    source : path
        A folder of images or of Parquet files in Hugging Face's image layout, or one such file.
    output : path
        A new or empty folder, or one that the same call has begun: killed at any moment and called again, it ends
        with exactly one row per image.
    model : path or str
        A saved model, or the name of an embedded one.
    engine : Engine
        `local`, or one such as `functools.partial(hybridclf_adapters.ray.run, actors=4)`.
    progress : bool
        Whether to show a progress bar.
    device : str, optional
        "auto", or what torch calls it, on every machine at work; default: the model's own.

    Returns
    -------
    Summary

    Raises
    ------
    InvalidInputError
        For a source with nothing to classify, an output begun with another source, model or version, or a classifier
        that is none of images.
    SavedModelError
        If the model cannot be read.
    """
    began = perf_counter()
    output = Path(output).absolute()
    listing = list_input(source)
    _check_apart(Path(source), output)
    folder = model_folder(model).absolute()
    check_image_shape(persistence.read_description(folder)["image_shape"])
    job = Job(listing.folder, output, folder, fingerprint(folder), device)
    claim(output, _manifest(job, listing))
    missing = [part for part in listing.parts if not is_done(output, part)]
    if missing:
        _work(job, missing, len(listing), engine, progress)
    return _summarise(output, listing, sum(map(len, missing)), perf_counter() - began)


def _check_apart(source: Path, output: Path) -> None:
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise InvalidInputError(f"OUTPUT {output} lies in INPUT {source}; give a folder elsewhere")


def _manifest(job: Job, listing: Listing) -> dict[str, Any]:
    """All that decides which rows come out."""
    return {
        "format": "hybridclf batch",
        "hybridclf": __version__,
        "model": job.fingerprint,
        "input": {"images": len(listing), "names and sizes": listing.sha256},
        "settings": {"images per part": PART, "labels per row": TOP},
    }


def _work(job: Job, missing: list[Part], n_images: int, engine: Engine, progress: bool) -> None:
    answered = errors = evaluations = 0
    initial = n_images - sum(map(len, missing))
    with progress_bar(total=n_images, initial=initial, desc="batch", unit="image", show=progress) as bar:
        for done in engine(job, missing):
            answered, errors = answered + done.answered, errors + done.errors
            evaluations += done.evaluations
            bar.set_postfix({"evaluations": f"{evaluations / max(answered, 1):.1f}", "errors": errors}, refresh=False)
            bar.update(done.answered + done.errors)


def _summarise(output: Path, listing: Listing, n_done: int, seconds: float) -> Summary:
    images, errors, evaluations = totals(output, listing.parts)
    remove_leftovers(output)
    return Summary(
        output=str(output),
        parts=len(listing.parts),
        images=images,
        errors=errors,
        evaluations=evaluations / (images - errors) if images > errors else None,
        done_before=images - n_done,
        seconds=seconds,
        images_per_second=n_done / seconds,
    )
