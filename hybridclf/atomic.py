"""Atomic writing: files are complete and on the disk, or absent."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["PART", "copy_tree", "in_utf8", "make_folder", "sync_folder", "sync_tree", "write_together", "write_whole"]

PART = ".part"
"""Ending of files that `write_together` has not put in place yet."""


def in_utf8(text: str) -> str:
    """Make a file's name valid UTF-8: other bytes become \\xff and the like."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def write_whole(path: Path, temporary: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name, wait until it is on the disk, and then rename it.

    Parameters
    ----------
    path, temporary : Path
        Final and temporary path in one folder; existing files are overwritten. Processes that may write the same file
        at once need different temporary names.
    write : function
        Function that writes to the open file.

    Raises
    ------
    OSError
        If the file cannot be written. An earlier file at `path` then stays, and `temporary` is removed.
    """
    try:
        _write(temporary, write)
        # atomic on one file system
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files, the last of which marks the set as complete.

    The marker is missing while the others are replaced, and each step is on the disk before the next begins. A folder
    cut short at any moment therefore has all of the old files, all of the new ones, or no marker.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    contents : mapping of str to bytes
        Contents by name, in order; a file with empty content is removed.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    *_, marker = contents
    # all contents are written before the first old file is touched: a full disk leaves the old set as it was
    parts = {name: folder / f"{name}{PART}" for name, content in contents.items() if content}
    try:
        for name, part in parts.items():
            _write(part, lambda file, content=contents[name]: file.write(content))  # type: ignore[misc]
        (folder / marker).unlink(missing_ok=True)
        sync_folder(folder)
        for name in contents:
            if name == marker:
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
    """Make a folder with its missing parents, and wait until they are on the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    # the name of a new folder is in its parent
    for path in missing:
        sync_folder(path.parent)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a file or a folder, over what is there, and wait until it is on the disk."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        sync_tree(target)
    else:
        write_whole(target, target.with_name(f"{target.name}{PART}"), lambda file: file.write(source.read_bytes()))


def sync_tree(folder: Path) -> None:
    """Wait until all files anywhere in a folder are on the disk, with their names."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if hasattr(os, "O_DIRECTORY"):  # Windows can open no folder
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
