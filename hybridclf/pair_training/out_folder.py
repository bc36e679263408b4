"""Folder that a model is written to: checks before minutes of reading."""

from pathlib import Path
from tempfile import TemporaryFile

from ..errors import TrainingError
from .checkpoint import writing

__all__ = ["check_free"]


def check_free(out: Path, source: str | Path | None = None) -> None:
    """Check that a model can be written to a folder, if given from the images of a source.

    Raises
    ------
    TrainingError
        If the folder is not empty, is inside the folder of images, or nothing can be written there.
    """
    if source is not None and Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise TrainingError(
            f"{out} is inside {source}, where it would be taken for a class of images; give a folder elsewhere"
        )
    if (out / "training" / "log.json").exists() and not (out / "model.json").exists():
        raise TrainingError(
            f"{out} holds a training that is not finished; resume it (--resume, or train_pair(resume=True) in "
            "Python), or give another folder"
        )
    if out.exists() and not _is_blank(out):
        raise TrainingError(f"{out} exists and is not empty; give a new or empty folder")
    # a file that goes again, in the nearest folder that is there: permissions alone do not say it of every disk
    nearest = next(folder for folder in (out, *out.parents) if folder.exists())
    with writing(out), TemporaryFile(dir=nearest):
        pass


def _is_blank(out: Path) -> bool:
    """Tell whether a folder is empty, or holds only the remains of a training killed before its first log."""
    begun = [out / "training"] if (out / "training").is_dir() else []
    return out.is_dir() and [*out.iterdir()] == begun and all(p.suffix == ".part" for d in begun for p in d.iterdir())
