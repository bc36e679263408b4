"""Folders of a batch in a store that fsspec reaches, such as s3://bucket/photos, and how any folder is found."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any
from uuid import uuid4

from ..errors import InvalidInputError, MissingDependencyError
from .folders import GO_ON, LOCK, MAX_BYTES, Folder, LocalFolder

__all__ = ["RemoteFolder", "folder_of"]

BEAT, LEASE = 3.0, 15.0
"""Seconds between two renewals of a lock in a store, and after which one that is not renewed is a dead run's."""


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
        found = {self._name(path): info for path, info in self._list("find").items()}
        # by folders, as files of this machine are
        wanted = sorted((name for name in found if _is_wanted(name, endings)), key=lambda name: name.split("/"))
        return {name: found[name]["size"] for name in wanted}

    def names(self) -> list[str]:
        """Names of the files directly in it."""
        # not by `find`, which to a depth of one takes a folder that cannot be listed for an empty one
        found = [self._name(info["name"]) for info in self._list("ls") if info["type"] != "directory"]
        # consoles of stores mark a folder by an empty object of its own name
        return [name for name in found if name]

    def _list(self, method: str) -> Any:
        """Ask for a listing by "find" or "ls", which is empty if there is no such folder."""
        system, root = self.system
        with _as_os_error():
            system.invalidate_cache()  # another process may have written since
            with suppress(FileNotFoundError):
                return getattr(system, method)(root, detail=True)
        return {}

    def _name(self, path: str) -> str:
        # one slash only: an object store may have both a//b.png and a/b.png
        return path.removeprefix(self.system[1]).removeprefix("/")

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
        except OSError:  # of an empty object, a store has no range
            if self.size(name) != 0:
                raise
            return b""
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
            if self._is_dead():
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

    def _is_dead(self) -> bool:
        """Watch a lock, whatever the clocks say: True once it has not changed for `LEASE`, False once it is gone.

        Raises
        ------
        BlockingIOError
            If it is renewed.
        """
        with suppress(FileNotFoundError):
            first = self.read(LOCK)
            for _ in range(round(LEASE / BEAT)):
                Event().wait(BEAT)
                if self.read(LOCK) != first:
                    raise BlockingIOError
            return True
        return False

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
    """End of a message that says how to install the package of a protocol that fsspec knows but cannot import."""
    from fsspec.registry import known_implementations

    package = known_implementations.get(protocol, {}).get("class", "fsspec.").partition(".")[0]
    return "" if package == "fsspec" else f"; type: pip install {package}"
