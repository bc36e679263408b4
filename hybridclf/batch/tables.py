"""Parquet files of images, read row by row."""

from collections.abc import Iterator
from errno import EINVAL
from itertools import islice, repeat
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
    anew would read it as often as there are parts. So the rows between two parts of a row group are read and dropped.

    Parameters
    ----------
    folder : Folder
        Folder of the files.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._cells: Iterator[tuple[Any, int]] = iter(())
        # file and row that `_cells` goes on with, and the end of that row's group
        self._name, self._row, self._group_stop = "", 0, 0

    def read(self, name: str, rows: range) -> Iterator[bytes | InvalidInputError]:
        """Read the images of some rows as bytes; from a damaged place on, every row gives the error.

        A path without bytes is not followed, since it may lead anywhere: it gives an error as well.

        Raises
        ------
        InvalidInputError
            If the folder or its store fails, which says nothing about the images.
        """
        if name == self._name and self._row <= rows.start <= self._group_stop:
            n_between = rows.start - self._row
        else:
            self._cells, n_between = _cells(self._folder, name, rows.start), 0
        self._name = ""  # unless all rows are read
        n_read = 0
        try:
            for cell, group_stop in islice(self._cells, n_between, n_between + len(rows)):
                yield bytes_in(cell) or InvalidInputError(
                    "the row holds no image bytes; write the images into the Parquet file itself"
                )
                n_read, self._group_stop = n_read + 1, group_stop
            self._name, self._row = name, rows.stop
        except (OSError, pa.ArrowException) as error:
            # an error of the system; an invalid argument comes from offsets in the file
            if isinstance(error, OSError) and error.errno not in (None, EINVAL):
                raise lost(self._folder, name, error) from error
            damage = InvalidInputError(f"the Parquet file cannot be read here: {error}")
            yield from [damage] * (len(rows) - n_read)


def _cells(folder: Folder, name: str, start: int) -> Iterator[tuple[Any, int]]:
    """Read the cells of the column of images from a row on, to the end of the file, each with the end of its group."""
    # batch by batch, not whole row groups, which may be the whole file
    with _opened(folder, name) as source, pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
        column, at = _bytes_column(file.schema_arrow, name), 0
        for group in range(file.metadata.num_row_groups):
            group_stop = at + file.metadata.row_group(group).num_rows
            if group_stop <= start:
                at = group_stop
                continue
            # a group at a time: batches, and what damage costs, do not depend on where the reading began
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                yield from zip(batch.column(0)[max(start - at, 0) :].to_pylist(), repeat(group_stop))
                at += len(batch)


def _bytes_column(schema: pa.Schema, name: str) -> str:
    """Path of the bytes of images within a schema; without the files' names beside them, which may be no Unicode."""
    column = image_column(schema, name)
    return f"{column}.bytes" if pa.types.is_struct(schema.field(column).type) else column


def _opened(folder: Folder, name: str) -> IO[bytes]:
    try:
        return folder.open(name)
    except OSError as error:
        raise lost(folder, name, error) from error
