"""Input of a batch job: image files, Parquet rows or tar archives with images, cut into fixed parts."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

from PIL import Image
from sklearn.utils import gen_batches

from ..data.image_files import ENDINGS, PICTURES
from ..errors import InvalidInputError
from .archives import Member, members, read_members
from .folders import GO_ON, Folder, lost
from .stores import folder_of
from .tables import RowReader, count_rows

__all__ = ["PART", "Listing", "Part", "Reader", "list_input"]

PART = 256
"""Images per part; a part is done whole or not at all."""

CONTAINERS = (".parquet", ".tar")
"""Endings of files that hold many images."""

INPUTS = "a folder of images, a .parquet file or a .tar archive"

READERS = 8
"""Images read from a store at a time."""

Decode = Callable[[bytes | Path], Image.Image]
"""Function that decodes a file's content or path, or raises InvalidInputError."""


@dataclass(frozen=True)
class Part:
    """Fixed part of the input: some image files, or some rows of one Parquet file, or some images of one archive.

    Attributes
    ----------
    number : int
        Position among the parts, from 0.
    files : tuple of str
        Paths within the input folder, of every image or of the one Parquet file or archive.
    rows : range or None
        Rows of the Parquet file; None for image files.
    members : tuple of Member
        Images of the archive; empty for anything else.
    """

    number: int
    files: tuple[str, ...]
    rows: range | None = None
    members: tuple[Member, ...] = ()

    def __len__(self) -> int:
        return len(self.sources())

    def sources(self) -> list[tuple[str, int | None]]:
        """List the file of each image, and its row in a Parquet file; of an archive "ARCHIVE/NAME"."""
        if self.rows is not None:
            return [(self.files[0], row) for row in self.rows]
        if self.members:
            return [(f"{self.files[0]}/{member.name}", None) for member in self.members]
        return [(file, None) for file in self.files]


@dataclass(frozen=True)
class Listing:
    """Whole input, in parts.

    Attributes
    ----------
    folder : Folder
        Folder of the parts' paths.
    parts : tuple of Part
        Parts, by number.
    sha256 : str
        Hash of the names and sizes of all files.
    """

    folder: Folder
    parts: tuple[Part, ...]
    sha256: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))


# --- listing ----------------------------------------------------------------------------------------------------------


def list_input(source: str | Path) -> Listing:
    """List an input in parts; the same files give the same parts on any machine.

    Parameters
    ----------
    source : path or address
        Folder with images, Parquet files or tar archives anywhere in it, or one Parquet file or archive.

    Returns
    -------
    Listing

    Raises
    ------
    InvalidInputError
        If the folder has none or several of these, there are no rows, or a Parquet file or archive is damaged or has
        no images.
    """
    try:
        folder, sizes = _find(source)
    except NotADirectoryError as error:
        raise InvalidInputError(
            f"{source} is neither a folder nor a Parquet file nor a tar archive; give {INPUTS} as INPUT"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"{source} cannot be read: {error}; {GO_ON}") from error
    # a folder of Parquet parts with a stray image is ambiguous
    first_of_kind = {name.lower().rpartition(".")[2] if _is_container(name) else "image": name for name in sizes}
    if len(first_of_kind) > 1:
        found = ", ".join(first_of_kind.values())
        raise InvalidInputError(f"{source} holds several kinds of files ({found}); give one kind, and move the others")
    if not sizes:
        endings = ", ".join((*ENDINGS, *CONTAINERS))
        raise InvalidInputError(f"{source} has no image in it: no file ends in {endings}")
    match [*first_of_kind]:
        case ["parquet"]:
            parts = _tables(folder, sizes)
        case ["tar"]:
            parts = _archives(folder, sizes)
        case _:
            parts = _images(list(sizes))
    return Listing(folder, tuple(parts), _digest(sizes))


def _is_container(name: str) -> bool:
    """Tell whether a file holds many images."""
    return name.lower().endswith(CONTAINERS)


def _find(source: str | Path) -> tuple[Folder, dict[str, int]]:
    """Find the folder of an input, and the names and sizes of its files."""
    folder = folder_of(source)
    parent, name = folder.split()
    if _is_container(name) and (size := parent.size(name)) is not None:
        return parent, {name: size}
    try:
        return folder, folder.sizes((*PICTURES, *CONTAINERS))
    except NotADirectoryError:
        if parent.size(name) is None:
            raise InvalidInputError(f"there is no {source}; give {INPUTS} as INPUT") from None
        raise


def _images(names: Sequence[str]) -> Iterator[Part]:
    """Cut image files into parts; names are within the folder, so that a moved input stays the same."""
    return (Part(i, tuple(names[cut.start : cut.stop])) for i, cut in enumerate(_cuts(len(names))))


def _tables(folder: Folder, names: Iterable[str]) -> Iterator[Part]:
    """Cut the rows of Parquet files into parts."""
    cuts = [(name, cut) for name in names for cut in _cuts(count_rows(folder, name))]
    if not cuts:
        raise InvalidInputError(f"there is no row in {folder}: {', '.join(names)}")
    return (Part(i, (name,), rows) for i, (name, rows) in enumerate(cuts))


def _archives(folder: Folder, names: Iterable[str]) -> Iterator[Part]:
    """Cut the images of tar archives into parts."""
    found = {name: members(folder, name) for name in names}
    images = [(name, every[cut.start : cut.stop]) for name, every in found.items() for cut in _cuts(len(every))]
    if not images:
        raise InvalidInputError(f"there is no image in {folder}: {', '.join(names)}; none ends in {', '.join(ENDINGS)}")
    return (Part(i, (name,), members=tuple(some)) for i, (name, some) in enumerate(images))


def _cuts(n: int) -> list[range]:
    """Cut n images into ranges of `PART`, the last one shorter."""
    return [range(n)[start : start + PART] for start in range(0, n, PART)]


def _digest(sizes: Mapping[str, int]) -> str:
    """Hash the names and sizes of files: reading their content would take as long as classifying it."""
    digest = hashlib.sha256()
    for name, size in sizes.items():
        digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


class Reader:
    """Reader of the images of parts; parts of one Parquet file are read fastest in order.

    Parameters
    ----------
    folder : Folder
        Folder of the parts' paths.
    decode : function
        Decodes a file's content or path, or raises InvalidInputError.
    """

    def __init__(self, folder: Folder, decode: Decode) -> None:
        self._folder, self._decode = folder, decode
        self._rows = RowReader(folder)

    def read(self, part: Part) -> Iterator[Image.Image | InvalidInputError]:
        """Read the images of a part in order; an unreadable one gives its error.

        Raises
        ------
        InvalidInputError
            If the folder or its store fails, which says nothing about the image.
        """
        return map(self._try, self._contents(part))

    def _contents(self, part: Part) -> Iterator[bytes | Path | InvalidInputError]:
        if part.rows is not None:
            return self._rows.read(part.files[0], part.rows)
        if part.members:
            return read_members(self._folder, part.files[0], part.members)
        return _read_files(self._folder, part.files)

    def _try(self, content: bytes | Path | InvalidInputError) -> Image.Image | InvalidInputError:
        try:
            return content if isinstance(content, InvalidInputError) else self._decode(content)
        except InvalidInputError as error:
            return error


def _read_files(folder: Folder, names: Sequence[str]) -> Iterator[bytes | Path | InvalidInputError]:
    # several at a time, as a store takes a while for each
    with ThreadPool(READERS) as pool:
        for some in gen_batches(len(names), READERS):
            yield from pool.map(partial(_try_content, folder), names[some])


def _try_content(folder: Folder, name: str) -> bytes | Path | InvalidInputError:
    """Read an image file, or return its own error."""
    try:
        return folder.image(name)
    except InvalidInputError as error:
        return error
    except OSError as error:
        raise lost(folder, name, error) from error
