"""Parquet files of images, read row by row."""

from collections.abc import Iterator
from errno import EINVAL
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.parquet import bytes_in, image_column
from ..errors import InvalidInputError
from .folders import Folder, lost

__all__ = ["RowReader", "count_rows"]

BATCH = 256
"""Rows in memory at a time."""

BUFFER = 2**20
"""Bytes of a file that are read at a time."""


def count_rows(folder: Folder, name: str) -> int:
    """Count the rows of a Parquet file, and check that it has a column of images.

    Raises
    ------
    InvalidInputError
        If it cannot be read, or it is not clear which column has the images.
    """
    try:
        with folder.open(name) as source, pq.ParquetFile(source) as file:
            schema, n_rows = file.schema_arrow, int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{folder}/{name} cannot be read as Parquet: {error}") from error
    image_column(schema, f"{folder}/{name}")
    return n_rows


class RowReader:
    """Reader of the images in Parquet files, which goes on in the open file where it stopped.

    A row group can be read from its beginning alone, and it may be the whole file: parts that each opened the file
    anew would read it as often as there are parts.

    Parameters
    ----------
    folder : Folder
        Folder of the files.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._cells: Iterator[Any] = iter(())
        self._next: tuple[str, int] | None = None  # file and row that `_cells` goes on with

    def read(self, name: str, rows: range) -> Iterator[bytes | InvalidInputError]:
        """Read the images of some rows as bytes; from a damaged place on, every row gives the error.

        A path without bytes is not followed, since it may lead anywhere: it gives an error as well.

        Raises
        ------
        InvalidInputError
            If the folder or its store fails, which says nothing about the images.
        """
        if self._next != (name, rows.start):
            self._cells = _cells(self._folder, name, rows.start)
        self._next = None  # unless all rows are read
        n_read = 0
        try:
            for cell in islice(self._cells, len(rows)):
                yield bytes_in(cell) or InvalidInputError(
                    "the row holds no image bytes; write the images into the Parquet file itself"
                )
                n_read += 1
            self._next = name, rows.stop
        except (OSError, pa.ArrowException) as error:
            # an error of the system; an invalid argument comes from offsets in the file
            if isinstance(error, OSError) and error.errno not in (None, EINVAL):
                raise lost(self._folder, name, error) from error
            damage = InvalidInputError(f"the Parquet file cannot be read here: {error}")
            yield from [damage] * (len(rows) - n_read)


def _cells(folder: Folder, name: str, start: int) -> Iterator[Any]:
    """Read the cells of the column of images from a row on, to the end of the file."""
    # batch by batch, not whole row groups, which may be the whole file
    with _opened(folder, name) as source, pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
        column = image_column(file.schema_arrow, name)
        at = 0
        for group in range(file.metadata.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            if at + n_rows <= start:
                at += n_rows
                continue
            # a group at a time: batches, and what damage costs, do not depend on where the reading began
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                yield from batch.column(0)[max(start - at, 0) :].to_pylist()
                at += len(batch)


def _opened(folder: Folder, name: str) -> IO[bytes]:
    try:
        return folder.open(name)
    except OSError as error:
        raise lost(folder, name, error) from error
