"""Files that are whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["write_whole"]


def write_whole(path: Path, temporary: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name in the same folder, wait until it is on the disk, and then give it its name.

    Parameters
    ----------
    path, temporary : Path
        The file, and where it is written first; what is there is overwritten. Several processes that may write the
        same file need a temporary name each.
    write : function
        Gets the open file.

    Raises
    ------
    OSError
        If the disk refuses. What was at `path` is then still there, and nothing at `temporary`.
    """
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # where a folder's own entry has to be asked for
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
