"""Batch classification of large folders, in parts that survive a kill, here or on a cluster."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import __version__, persistence
from ..data.decoders import DECODE_SECONDS
from ..data.image_files import check_image_shape
from ..errors import InvalidInputError
from ..pretrained.catalog import model_folder
from ..utils.bounds import check_number
from ..utils.progress import progress_bar
from .folders import Folder, LocalFolder
from .inputs import PART, Listing, Part, list_input
from .output import claim, exclusive, fingerprint, missing_parts, remove_leftovers, totals
from .stores import folder_of
from .worker import TOP, Done, Engine, Job, Worker, local

__all__ = ["Done", "Engine", "Job", "Part", "Summary", "Worker", "local", "run"]


@dataclass(frozen=True)
class Summary:
    """Summary of a complete output and of the run that completed it.

    Attributes
    ----------
    output : str
        Path or address of the folder.
    parts, images, errors : int
        Number of parts, of rows, and of rows with an error.
    first_errors : list of str
        The first three of these, each behind its image.
    evaluations : float or None
        Mean evaluations per answered image; None if no image was answered.
    precisions : list of str
        Types that tier 2 computed in. Several if processors of different kinds did parts of the output, whose
        posteriors then differ a little.
    done_before : int
        Images whose parts existed before this run.
    seconds : float
        Time of this run, loading included.
    images_per_second : float
        Images of this run over its time.
    """

    output: str
    parts: int
    images: int
    errors: int
    first_errors: list[str]
    evaluations: float | None
    precisions: list[str]
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
    decode_seconds: float = DECODE_SECONDS,
) -> Summary:
    """Classify all images of a source into Parquet parts; existing parts are not computed again.

    Parameters
    ----------
    source : path or address
        Folder of images, tar archives or Parquet files (Hugging Face's image layout, or a column of bytes), or one such
        file; on this machine, or at an address that fsspec reaches, such as "s3://bucket/photos".
    output : path or address
        New or empty folder, or one begun by the same call. A call killed at any moment and repeated ends with exactly
        one row per image.
    model : path or str
        Saved model, or the name of an embedded one.
    engine : Engine
        `local`, or another such as `functools.partial(hybridclf_adapters.ray.run, actors=4)`.
    progress : bool
        Show a progress bar.
    device : str, optional
        "auto", or torch's name of the device on every machine. Default: the model's own.
    decode_seconds : float
        Longest time to decode one image, above 0; an image beyond it is a row with an error.

    Returns
    -------
    Summary

    Raises
    ------
    InvalidInputError
        For a source without images, an output begun with another source, model or version, one that another run writes
        to, an address of the web, a store that fails, or a classifier that takes no images.
    MissingDependencyError
        If the package of an address's protocol is not installed.
    SavedModelError
        If the model cannot be read.
    """
    check_number("decode_seconds", decode_seconds, above=0)
    began = perf_counter()
    into = folder_of(output)
    listing = list_input(source)
    if _lies_in(into, folder_of(source)):
        # a repeated call would find its own output among the input
        raise InvalidInputError(f"OUTPUT {output} lies in INPUT {source}; give a folder elsewhere")
    folder = model_folder(model).absolute()
    check_image_shape(persistence.read_description(folder)["image_shape"])
    job = Job(listing.folder, into, folder, fingerprint(folder), device, decode_seconds)
    with exclusive(into):
        # before any work, so that a wrong OUTPUT costs no time
        claim(into, _manifest(job, listing))
        missing = missing_parts(into, listing.parts)
        # no model is loaded for a batch that is done
        if missing:
            _work(job, missing, len(listing), engine, progress)
        return _summarise(into, listing, sum(map(len, missing)), perf_counter() - began)


def _lies_in(output: Folder, source: Folder) -> bool:
    if isinstance(output, LocalFolder) and isinstance(source, LocalFolder):
        return output.path.resolve().is_relative_to(source.path.resolve())
    return f"{output}/".startswith(f"{source}/")


def _manifest(job: Job, listing: Listing) -> dict[str, Any]:
    """Everything that decides the rows of the output."""
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
            # the mean over answered images so far, as in the summary
            bar.set_postfix({"evaluations": f"{evaluations / max(answered, 1):.1f}", "errors": errors}, refresh=False)
            bar.update(done.answered + done.errors)


def _summarise(output: Folder, listing: Listing, n_done: int, seconds: float) -> Summary:
    images, errors, evaluations, first_errors, precisions = totals(output, listing.parts)
    remove_leftovers(output)
    return Summary(
        output=str(output),
        parts=len(listing.parts),
        images=images,
        errors=errors,
        first_errors=first_errors,
        evaluations=evaluations / (images - errors) if images > errors else None,
        precisions=precisions,
        done_before=images - n_done,
        seconds=seconds,
        images_per_second=n_done / seconds,
    )
