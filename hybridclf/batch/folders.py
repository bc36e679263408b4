"""Folders of a batch: what any has, and those of this machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol
from uuid import uuid4

from ..atomic import write_whole
from ..data.image_files import files_in
from ..errors import InvalidInputError

__all__ = ["GO_ON", "LOCK", "MAX_BYTES", "Folder", "LocalFolder", "lost"]

LOCK = "_lock"
"""File name of the lock of the run at work."""

MAX_BYTES = 64 * 2**20
"""Most bytes of an image that is read into memory."""

GO_ON = "mend that, then repeat the command to go on"
"""End of a message on a failure that is not of the images."""


def lost(folder: "Folder", name: str, error: OSError) -> InvalidInputError:
    """Make the error that ends a run where a file cannot be read for a reason that is not its own."""
    return InvalidInputError(f"{folder}/{name} cannot be read: {error}; {GO_ON}")


class Folder(Protocol):
    """Folder of files by their names within it, such as "a/b.png"; its failures are of the type OSError."""

    def sizes(self, endings: Sequence[str]) -> dict[str, int]:
        """Sizes of the files anywhere in it with one of these endings, hidden ones left out, in the order of names."""

    def names(self) -> list[str]:
        """Names of what is directly in it."""

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if there is no such file."""

    def split(self) -> tuple["Folder", str]:
        """Split its path into the folder that it is in and its name there."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading at any place."""

    def read(self, name: str) -> bytes:
        """Read a whole file."""

    def image(self, name: str) -> bytes | Path:
        """Content of an image file, or its path on this machine, as `Decoders.decode` takes them."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, in place of an earlier one."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def lock(self) -> AbstractContextManager[None]:
        """Make the folder unless it exists, and keep other runs out in a `with` block.

        Raises
        ------
        BlockingIOError
            If another run is at work.
        """


@dataclass(frozen=True)
class LocalFolder:
    """Folder of this machine, by its absolute path."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def sizes(self, endings: Sequence[str]) -> dict[str, int]:
        """Sizes of files; -1 for a broken link, whose error comes when it is read."""
        if not self.path.is_dir():
            raise NotADirectoryError(f"{self} is no folder")
        return {file.relative_to(self.path).as_posix(): _size(file) for file in files_in(self.path, endings)}

    def names(self) -> list[str]:
        """Names of what is directly in it."""
        return os.listdir(self.path)

    def size(self, name: str) -> int | None:
        """Size of a file in bytes."""
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def split(self) -> tuple[Folder, str]:
        """Split its path."""
        return LocalFolder(self.path.parent), self.path.name

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return (self.path / name).open("rb")

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return (self.path / name).read_bytes()

    def image(self, name: str) -> bytes | Path:
        """Path of an image.

        Raises
        ------
        OSError
            If the system cannot look at it, or it is missing as the whole folder is, like that of a lost mount.
        """
        file = self.path / name
        try:
            file.stat()
        except PermissionError:
            return file  # the decoder says so
        except FileNotFoundError:
            if not (self.path.is_dir() and any(self.path.iterdir())):
                raise
        return file

    def write(self, name: str, content: bytes) -> None:
        """Write a file under another name, wait until it is on the disk, and rename it."""
        temporary = self.path / f".{name}.{uuid4().hex}.tmp"
        write_whole(self.path / name, temporary, lambda file: file.write(content))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock a file of its own, which the system forgets when the process ends, however it does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("ab") as file:
            _lock(file)
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no open file
                    self.remove(LOCK)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _lock(file: IO[bytes]) -> None:
    """Lock an open file, if its file system can; Windows' locks would keep others from reading it.

    Raises
    ------
    BlockingIOError
        If another run has the lock, or has ended and removed the file since it was opened here.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks
        return
    # a lock on a removed file would keep nobody out: the next run makes another
    if not os.fstat(file.fileno()).st_nlink:
        raise BlockingIOError
