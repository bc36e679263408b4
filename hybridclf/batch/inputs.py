"""Input of a batch job: image files or Parquet rows with images, cut into fixed parts."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..data.image_files import ENDINGS, files_in
from ..data.parquet import image_column, opened
from ..errors import InvalidInputError

__all__ = ["PART", "Listing", "Part", "list_input", "read"]

PART = 256
"""Images per part; a part is done whole or not at all."""


Decode = Callable[[bytes | Path], Image.Image]
"""Function that decodes a file's content or path, or raises InvalidInputError."""


@dataclass(frozen=True)
class Part:
    """Fixed part of the input: some image files, or some rows of one Parquet file.

    Attributes
    ----------
    number : int
        Position among the parts, from 0.
    files : tuple of str
        Paths within the input folder, of every image or of the one Parquet file.
    rows : range or None
        Rows of the Parquet file; None for image files.
    """

    number: int
    files: tuple[str, ...]
    rows: range | None = None

    def __len__(self) -> int:
        return len(self.files if self.rows is None else self.rows)

    def sources(self) -> list[tuple[str, int | None]]:
        """List the file of each image, and its row in a Parquet file."""
        if self.rows is None:
            return [(file, None) for file in self.files]
        return [(self.files[0], row) for row in self.rows]


@dataclass(frozen=True)
class Listing:
    """Whole input, in parts.

    Attributes
    ----------
    folder : Path
        Absolute folder of the parts' paths.
    parts : tuple of Part
        Parts, by number.
    sha256 : str
        Hash of the names and sizes of all files.
    """

    folder: Path
    parts: tuple[Part, ...]
    sha256: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))


# --- listing ----------------------------------------------------------------------------------------------------------


def list_input(source: str | Path) -> Listing:
    """List an input in parts; the same files give the same parts on any machine.

    Parameters
    ----------
    source : path
        Folder with images or Parquet files anywhere in it, or one Parquet file.

    Returns
    -------
    Listing

    Raises
    ------
    InvalidInputError
        If the folder has neither or both, there are no rows, or a Parquet file is damaged or has no column of images.
    """
    source = Path(source).absolute()
    if source.suffix.lower() == ".parquet" and source.is_file():
        return _list_parquet(source.parent, [source])
    if not source.is_dir():
        raise InvalidInputError(f"{source} is neither a folder nor a Parquet file; give one of these as INPUT")
    images, tables = files_in(source), files_in(source, [".parquet"])
    # a folder of Parquet parts with a stray image is ambiguous
    if images and tables:
        raise InvalidInputError(
            f"{source} holds both images and Parquet files ({images[0].name}, {tables[0].name}); give one kind"
        )
    if not images and not tables:
        raise InvalidInputError(f"{source} has no image in it: no file ends in {', '.join(ENDINGS)} or .parquet")
    return _list_parquet(source, tables) if tables else _list_images(source, images)


def _list_images(folder: Path, files: Sequence[Path]) -> Listing:
    names = [file.relative_to(folder).as_posix() for file in files]
    # paths are relative, so that a moved or differently mounted input stays the same
    parts = (Part(i, tuple(names[cut.start : cut.stop])) for i, cut in enumerate(_cuts(len(names))))
    return Listing(folder, tuple(parts), _digest(folder, names))


def _list_parquet(folder: Path, files: Sequence[Path]) -> Listing:
    names = [file.relative_to(folder).as_posix() for file in files]
    cuts = [(name, cut) for name, file in zip(names, files, strict=True) for cut in _cuts(_count_rows(file))]
    if not cuts:
        raise InvalidInputError(f"there is no row in {files[0]}" + (" nor in the others" if len(files) > 1 else ""))
    parts = (Part(i, (name,), rows) for i, (name, rows) in enumerate(cuts))
    return Listing(folder, tuple(parts), _digest(folder, names))


def _cuts(n: int) -> list[range]:
    """Cut n images into ranges of `PART`, the last one shorter."""
    return [range(n)[start : start + PART] for start in range(0, n, PART)]


def _count_rows(path: Path) -> int:
    """Count the rows of a Parquet file, and check that it has a column of images."""
    with opened(path) as file:
        image_column(file.schema_arrow, path)
        return int(file.metadata.num_rows)


def _digest(folder: Path, names: Sequence[str]) -> str:
    """Hash the names and sizes of files: reading their content would take as long as classifying it."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b"\0%d\n" % _size(folder / name))
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Size in bytes; -1 for a broken link, whose error comes when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Path, part: Part, decode: Decode) -> Iterator[Image.Image | InvalidInputError]:
    """Read the images of a part one at a time; an unreadable one gives its error."""
    if part.rows is None:
        return (_try(decode, folder / name) for name in part.files)
    return _read_rows(folder / part.files[0], part.rows, decode)


def _try(decode: Decode, source: bytes | Path) -> Image.Image | InvalidInputError:
    try:
        return decode(source)
    except InvalidInputError as error:
        return error


def _read_rows(path: Path, rows: range, decode: Decode) -> Iterator[Image.Image | InvalidInputError]:
    """Read rows of a Parquet file; from a damaged place on, every row gives the error."""
    n_read = 0
    try:
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            for cell in _cells(file, image_column(file.schema_arrow, path), rows):
                yield _try_cell(cell, decode)
                n_read += 1
    except (OSError, pa.ArrowException) as error:
        damage = InvalidInputError(f"the Parquet file cannot be read here: {error}")
        yield from [damage] * (len(rows) - n_read)


def _cells(file: pq.ParquetFile, column: str, rows: range) -> Iterator[dict[str, Any] | None]:
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


def _try_cell(cell: dict[str, Any] | None, decode: Decode) -> Image.Image | InvalidInputError:
    """Decode the image in a cell; a path without bytes is not followed, since it may lead anywhere."""
    content = cell and cell["bytes"]
    if not content:
        return InvalidInputError("the row holds no image bytes; write the images into the Parquet file itself")
    return _try(decode, content)
