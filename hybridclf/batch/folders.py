"""Folders of a batch: of this machine, or in a store that fsspec reaches, such as s3://bucket/photos."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, Protocol
from uuid import uuid4

from ..atomic import write_whole
from ..data.image_files import files_in
from ..errors import InvalidInputError, MissingDependencyError

__all__ = ["GO_ON", "LOCK", "Folder", "LocalFolder", "RemoteFolder", "folder_of"]

LOCK = "_lock"
"""File name of the lock of the run at work."""

BEAT, LEASE = 3.0, 15.0
"""Seconds between two renewals of a lock in a store, and after which one that is not renewed is a dead run's."""

MAX_BYTES = 64 * 2**20
"""Most bytes of one image in a store, which is read into memory."""


GO_ON = "mend that, then repeat the command to go on"
"""End of a message on a failure that is not of the images."""


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


def folder_of(place: str | Path) -> Folder:
    """Find the folder of a path or an address, such as "photos", "file:///photos" or "s3://bucket/photos".

    Raises
    ------
    InvalidInputError
        For an address of the web, or of a protocol that fsspec does not know.
    MissingDependencyError
        If the protocol's package is not installed.
    """
    if isinstance(place, Path) and re.match(r"[a-z0-9+]{2,}:[/\\]", str(place)):
        raise InvalidInputError(f"{place} is an address that lost a slash in a Path; give it as a string")
    if "://" not in str(place):
        return LocalFolder(Path(place).absolute())
    address = str(place)
    if re.search(r"\bhttps?://", address):
        raise InvalidInputError(f"{address} is an address of the web, of which nothing is fetched; download it first")
    folder = RemoteFolder(address.rstrip("/") if not address.endswith("://") else address)
    system, root = folder.system
    # files of this machine are renamed into place and locked, whatever their address looks like
    return LocalFolder(Path(root)) if "file" in system.protocol else folder


# --- this machine -----------------------------------------------------------------------------------------------------


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
        """Path of an image."""
        return self.path / name

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


# --- a store ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteFolder:
    """Folder in a store, by its address; credentials are found by the store's package."""

    address: str

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.address,)  # connections stay behind

    @cached_property
    def system(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path of the folder there."""
        from fsspec.core import url_to_fs

        protocol = self.address.partition("://")[0]
        try:
            return url_to_fs(self.address)
        except ImportError as error:
            raise MissingDependencyError(f"{error}{_package_of(protocol)}") from error
        except ValueError as error:
            raise InvalidInputError(f"{self.address} cannot be used: {error}; give a folder or s3://…") from error

    def sizes(self, endings: Sequence[str]) -> dict[str, int]:
        """Sizes of files, by one listing."""
        found = {name: info["size"] for name, info in self._find().items() if _is_wanted(name, endings)}
        # by folders, as files of this machine are
        return {name: found[name] for name in sorted(found, key=lambda name: name.split("/"))}

    def names(self) -> list[str]:
        """Names of the files directly in it."""
        return list(self._find(maxdepth=1))

    def _find(self, **options: Any) -> dict[str, Any]:
        system, root = self.system
        with _as_os_error():
            system.invalidate_cache()  # another process may have written since
            with suppress(FileNotFoundError):
                found = system.find(root, detail=True, **options)
                return {path.removeprefix(root).lstrip("/"): info for path, info in found.items()}
        return {}

    def size(self, name: str) -> int | None:
        """Size of a file in bytes."""
        with suppress(FileNotFoundError):
            info = self._ask("info", name)
            return info["size"] if info["type"] == "file" else None
        return None

    def split(self) -> tuple[Folder, str]:
        """Split its address."""
        parent, _, name = self.address.rpartition("/")
        return RemoteFolder(parent), name

    def open(self, name: str) -> IO[bytes]:
        """Open a file, of which only the ranges that are read are fetched."""
        return _Reading(self._ask("open", name, "rb"))  # type: ignore[return-value]

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return self._ask("cat_file", name)

    def image(self, name: str) -> bytes | Path:
        """Content of an image.

        Raises
        ------
        InvalidInputError
            If it has more than `MAX_BYTES`, or is missing or forbidden.
        """
        try:
            content = self._ask("cat_file", name, start=0, end=MAX_BYTES + 1)
        except (FileNotFoundError, PermissionError) as error:
            raise InvalidInputError(f"it cannot be read: {error}") from error
        if len(content) > MAX_BYTES:
            raise InvalidInputError(f"it has more than {MAX_BYTES:,} bytes; save it smaller")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file, which object stores do at once."""
        self._ask("pipe_file", name, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._ask("rm_file", name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make a file that is renewed every few seconds; one that is not renewed any more is a dead run's.

        Two runs that find a dead one's lock at the same moment may both go on. Then parts are done twice, with the same
        rows.
        """
        token = uuid4().hex
        if not self._create_lock(token):
            self._await_death()
            self.remove(LOCK)
            if not self._create_lock(token):
                raise BlockingIOError
        ended = Event()
        renewing = Thread(target=self._renew_lock, args=(token, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with suppress(OSError):  # the next run finds it dead
                self.remove(LOCK)

    def _create_lock(self, token: str) -> bool:
        """Make the lock; False if there is one."""
        try:
            self._ask("pipe_file", LOCK, token.encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def _await_death(self) -> None:
        """Watch a lock that exists until it is removed or older than `LEASE`, whatever the clocks say."""
        with suppress(FileNotFoundError):
            first = self.read(LOCK)
            for _ in range(round(LEASE / BEAT)):
                Event().wait(BEAT)
                if self.read(LOCK) != first:
                    raise BlockingIOError

    def _renew_lock(self, token: str, ended: Event) -> None:
        beats = 0
        while not ended.wait(BEAT):
            beats += 1
            with suppress(OSError):  # the work goes on; what it writes shows whether the store is there
                self.write(LOCK, f"{token} {beats}".encode())

    def _ask(self, method: str, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system for a file in the folder."""
        system, root = self.system
        with _as_os_error():
            return getattr(system, method)(f"{root}/{name}", *args, **options)


class _Reading:
    """Open file in a store; a failure of the store is no damage to the file and so ends the run."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, *args: Any) -> bytes:
        try:
            return self._file.read(*args)
        except Exception as error:
            raise InvalidInputError(f"{self._file.path} cannot be read: {_reason(error)}; {GO_ON}") from error

    def __enter__(self) -> "_Reading":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _is_wanted(name: str, endings: Sequence[str]) -> bool:
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return not is_hidden and Path(name).suffix.lower() in endings


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Turn errors of a store's own library, such as botocore's for missing credentials, into OSErrors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _package_of(protocol: str) -> str:
    """What to type for the package of a protocol that fsspec knows but cannot import."""
    from fsspec.registry import known_implementations

    package = known_implementations.get(protocol, {}).get("class", "fsspec.").partition(".")[0]
    return "" if package == "fsspec" else f"; type: pip install {package}"
