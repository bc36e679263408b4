"""Files that are whole and on the disk, or not there, and names that can be written into them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["in_utf8", "make_folder", "sync_folder", "sync_tree", "write_together", "write_whole"]


def in_utf8(text: str) -> str:
    """Text that may stem from a file's name; bytes in it that are no UTF-8 are written as \\xff and the like."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


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
        _write(temporary, write)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of which the last says that all are there, each step on the disk before the next begins.

    While the others are replaced the last is missing, so that a folder cut short at any moment holds all of the old
    files, all of the new ones, or no such sign.

    Parameters
    ----------
    folder : Path
        Where they go.
    contents : mapping of str to bytes
        By name, in order; an empty one is removed.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    *_, sign = contents
    parts = {name: folder / f"{name}.part" for name, content in contents.items() if content}
    try:
        for name, part in parts.items():
            _write(part, lambda file, content=contents[name]: file.write(content))  # type: ignore[misc]
        (folder / sign).unlink(missing_ok=True)
        sync_folder(folder)
        for name in contents:
            if name == sign:
                sync_folder(folder)
            if name in parts:
                parts[name].replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing, and wait until they are on the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until all files in a folder and in those below it are on the disk, with their names."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, on systems where that has to be asked for."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
