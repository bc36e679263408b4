"""Input of a batch job: image files, Parquet rows or tar archives with images, cut into fixed parts."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.utils import gen_batches

from ..data.image_files import ENDINGS, PICTURES
from ..data.parquet import bytes_in, image_column
from ..errors import InvalidInputError
from .archives import Member, members, read_members
from .folders import GO_ON, Folder
from .stores import folder_of

__all__ = ["PART", "Listing", "Part", "list_input", "read"]

PART = 256
"""Images per part; a part is done whole or not at all."""

CONTAINERS = (".parquet", ".tar")
"""Endings of files that hold many images."""

INPUTS = "a folder of images, a .parquet file or a .tar archive"

READERS = 8
"""Images read from a store at a time."""

BUFFER = 2**20
"""Bytes of a Parquet file that are read at a time."""

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
    cuts = [(name, cut) for name in names for cut in _cuts(_count_rows(folder, name))]
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


def _count_rows(folder: Folder, name: str) -> int:
    """Count the rows of a Parquet file, and check that it has a column of images."""
    try:
        with folder.open(name) as source, pq.ParquetFile(source) as file:
            schema, n_rows = file.schema_arrow, int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{folder}/{name} cannot be read as Parquet: {error}") from error
    image_column(schema, f"{folder}/{name}")
    return n_rows


def _digest(sizes: Mapping[str, int]) -> str:
    """Hash the names and sizes of files: reading their content would take as long as classifying it."""
    digest = hashlib.sha256()
    for name, size in sizes.items():
        digest.update(os.fsencode(name) + b"\0%d\n" % size)
    return digest.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Folder, part: Part, decode: Decode) -> Iterator[Image.Image | InvalidInputError]:
    """Read the images of a part in order; an unreadable one gives its error.

    Raises
    ------
    InvalidInputError
        If the folder or its store fails, which says nothing about the image.
    """
    if part.rows is not None:
        return _read_rows(folder, part.files[0], part.rows, decode)
    if part.members:
        contents = read_members(folder, part.files[0], part.members)
        return (content if isinstance(content, InvalidInputError) else _try(decode, content) for content in contents)
    return _read_files(folder, part.files, decode)


def _read_files(folder: Folder, names: Sequence[str], decode: Decode) -> Iterator[Image.Image | InvalidInputError]:
    # several at a time, as a store takes a while for each
    with ThreadPool(READERS) as pool:
        for some in gen_batches(len(names), READERS):
            for content in pool.map(partial(_try_content, folder), names[some]):
                yield content if isinstance(content, InvalidInputError) else _try(decode, content)


def _try_content(folder: Folder, name: str) -> bytes | Path | InvalidInputError:
    """Read an image file, or return its own error."""
    try:
        return folder.image(name)
    except InvalidInputError as error:
        return error
    except OSError as error:
        raise _lost(folder, name, error) from error


def _try(decode: Decode, source: bytes | Path) -> Image.Image | InvalidInputError:
    try:
        return decode(source)
    except InvalidInputError as error:
        return error


def _read_rows(folder: Folder, name: str, rows: range, decode: Decode) -> Iterator[Image.Image | InvalidInputError]:
    """Read rows of a Parquet file; from a damaged place on, every row gives the error."""
    n_read = 0
    try:
        # row by row, not whole row groups, which may be the whole file
        with _opened(folder, name) as source, pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
            for cell in _cells(file, image_column(file.schema_arrow, name), rows):
                yield _try_cell(cell, decode)
                n_read += 1
    except (OSError, pa.ArrowException) as error:
        # an error of the system; an invalid argument comes from offsets in the file
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
            raise _lost(folder, name, error) from error
        damage = InvalidInputError(f"the Parquet file cannot be read here: {error}")
        yield from [damage] * (len(rows) - n_read)


def _opened(folder: Folder, name: str) -> IO[bytes]:
    try:
        return folder.open(name)
    except OSError as error:
        raise _lost(folder, name, error) from error


def _lost(folder: Folder, name: str, error: OSError) -> InvalidInputError:
    """The error that ends a run where a file cannot be read for a reason that is not its own."""
    return InvalidInputError(f"{folder}/{name} cannot be read: {error}; {GO_ON}")


def _cells(file: pq.ParquetFile, column: str, rows: range) -> Iterator[Any]:
    """Read the cells of one column for some rows, from the row groups that hold them."""
    # groups of 100, 100 and 50 rows end at 100, 200, 250; rows 150 to 220 are in groups 1 and 2, from row 100 on
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    first, last = np.searchsorted(ends, rows.start, side="right"), np.searchsorted(ends, rows.stop)
    at = int(ends[first]) - sizes[first]
    for batch in file.iter_batches(PART, row_groups=list(range(first, last + 1)), columns=[column]):
        inside = slice(max(rows.start - at, 0), max(rows.stop - at, 0))
        yield from batch.column(0)[inside].to_pylist()
        at += len(batch)
        if at >= rows.stop:
            return


def _try_cell(cell: Any, decode: Decode) -> Image.Image | InvalidInputError:
    """Decode the image in a cell; a path without bytes is not followed, since it may lead anywhere."""
    content = bytes_in(cell)
    if not content:
        return InvalidInputError("the row holds no image bytes; write the images into the Parquet file itself")
    return _try(decode, content)
