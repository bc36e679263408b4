"""Parquet in the layout of Hugging Face image data sets: a struct column of the files' bytes and a label column."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InvalidInputError

__all__ = ["ImageTable", "bytes_in", "find", "image_column", "opened"]

BYTES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp")
"""Names of columns whose plain bytes are images."""

BATCH = 256
"""Rows read at a time."""


@dataclass(frozen=True)
class ImageTable:
    """Labelled images in one or several files.

    Attributes
    ----------
    files : list of path
        Sorted by name.
    image, label : str
        Names of the two columns.
    group : str or None
        Name of the column of groups.
    classes : list of C str
        Class names: from the schema's metadata, else the labels that occur, sorted.
    values : list of C labels
        Value of each class in the label column.
    n_rows : int
        Number of images in all files.
    """

    files: list[Path]
    image: str
    label: str
    group: str | None
    classes: list[str]
    values: list[Any]
    n_rows: int

    @property
    def name(self) -> str:
        """The first file, for messages."""
        return str(self.files[0])

    def rows(self) -> Iterator[tuple[bytes | None, int, Any]]:
        """Iterate over the images: the file's bytes (None if the table has none), the class number and the group.

        Raises
        ------
        InvalidInputError
            For an unknown label or a damaged file.
        """
        for path in self.files:
            for batch in _batches(path, [self.image, self.label, *([self.group] if self.group else [])]):
                groups = batch[self.group].to_pylist() if self.group else repeat(None, len(batch))
                images = map(bytes_in, batch[self.image].to_pylist())
                yield from zip(images, self._numbers(path, batch), groups, strict=True)

    def class_numbers(self) -> Iterator[int]:
        """Iterate over the class numbers of the images, without reading these.

        Raises
        ------
        InvalidInputError
            For an unknown label or a damaged file.
        """
        for path in self.files:
            for batch in _batches(path, [self.label]):
                yield from self._numbers(path, batch)

    def _numbers(self, path: Path, batch: pa.RecordBatch) -> Iterator[int]:
        number = {value: i for i, value in enumerate(self.values)}
        for value in batch[self.label].to_pylist():
            if value not in number:
                raise InvalidInputError(f"{path} has the label {value!r}, which is no class of it")
            yield number[value]


def find(path: Path, group: str | None = None) -> ImageTable:
    """Find the columns and classes of a Parquet file, or of the parts of one split in a folder.

    Parameters
    ----------
    path : path
        File or folder.
    group : str, optional
        Name of the column of groups. Default: "group", if there is one.

    Returns
    -------
    ImageTable

    Raises
    ------
    InvalidInputError
        If the file is no Parquet, the image or label column is missing or ambiguous, the group column is missing, or
        parts differ in these columns or in the names of the classes.
    """
    files = [path] if path.is_file() else _parts(path)
    schemas, counts = zip(*map(_described, files), strict=True)
    schema = schemas[0]
    image = image_column(schema, files[0])
    label = _pick(files[0], "labels", schema, _holds_labels, ("label", "labels"))
    # Hugging Face stores class numbers and their names apart; other tables store the names themselves
    names = _names(schema, label)
    values = list(range(len(names))) if names else _values(files, label)
    group = _group(schema, group, files[0])
    for path, other in zip(files[1:], schemas[1:], strict=True):
        if not {image, label, group} - {None} <= set(other.names) or _names(other, label) != names:
            raise InvalidInputError(
                f"{path} has other columns or classes than {files[0]}; give one table, or parts of the same one"
            )
    return ImageTable(files, image, label, group, names or list(map(str, values)), values, sum(counts))


def _described(path: Path) -> tuple[pa.Schema, int]:
    """Read the schema and the number of rows."""
    with opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _parts(folder: Path) -> list[Path]:
    """List the files of the one split in a folder: NAME.parquet, or NAME-00000-of-00002.parquet and so on."""
    files = sorted(folder.glob("*.parquet"))
    splits = sorted({file.stem.partition("-0")[0] for file in files})
    if len(splits) > 1:
        raise InvalidInputError(f"{folder} holds several tables: {', '.join(splits)}; give one file")
    return files


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file in a `with` block.

    Raises
    ------
    InvalidInputError
        If it is no Parquet.
    """
    # the stack keeps the caller's own errors, raised at the yield, out of the try
    with ExitStack() as stack:
        try:
            # opened by Python: pyarrow cannot open names that are no UTF-8
            file = stack.enter_context(pq.ParquetFile(stack.enter_context(path.open("rb"))))
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(f"{path} cannot be read as Parquet: {error}") from error
        yield file


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of a file, `BATCH` rows at a time."""
    try:
        with opened(path) as file:
            yield from file.iter_batches(BATCH, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} is damaged: {error}") from error


def image_column(schema: pa.Schema, path: str | Path) -> str:
    """Name of the column of images: {bytes, path} structs, as Hugging Face stores them, else plain bytes.

    The path is for the message.

    Raises
    ------
    InvalidInputError
        If there is none, or several of which none is named "image" or "img".
    """
    kinds = {field.name: field.type for field in schema}
    structs = any(map(_holds_structs, kinds.values()))
    # bytes of other names may be anything, such as hashes
    named = [name for name in BYTES if name in kinds and _holds_bytes(kinds[name])]
    if named and not structs:
        return named[0]
    lists = [name for name, kind in kinds.items() if _is_list_of_images(kind)]
    if lists and not structs:
        raise InvalidInputError(
            f"{path} has several images in a row, in {lists[0]!r}; write a row for each, as with "
            f"pandas.read_parquet(…).explode({lists[0]!r})"
        )
    plain = [name for name, kind in kinds.items() if _holds_bytes(kind)]
    if plain and not structs:
        raise InvalidInputError(
            f"{path} should have one column of images, such as 'image'; it has none among {', '.join(kinds)}, and a "
            f"column of plain bytes is one if it is called {', '.join(BYTES[:-1])} or {BYTES[-1]}: rename {plain[0]!r}"
        )
    return _pick(path, "images", schema, _holds_structs, ("image", "img"))


def bytes_in(cell: Any) -> bytes | None:
    """Bytes in a cell of images, a struct or the bytes themselves; None if there are none."""
    return cell.get("bytes") if isinstance(cell, dict) else cell


def _holds_bytes(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _holds_structs(kind: pa.DataType) -> bool:
    """Tell whether a column is a struct with a field of bytes."""
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)


def _is_list_of_images(kind: pa.DataType) -> bool:
    is_list = any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    return is_list and (_holds_structs(kind.value_type) or _holds_bytes(kind.value_type))


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # pandas' categories
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _group(schema: pa.Schema, wanted: str | None, path: Path) -> str | None:
    """Name of the column of groups, if there is one."""
    if wanted is None and "group" not in schema.names:
        return None
    name = wanted or "group"
    usable = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if name not in usable:
        raise InvalidInputError(
            f"{path} has no column {name!r} of single values to group images by; it has {', '.join(usable)}"
        )
    return name


def _pick(path: str | Path, what: str, schema: pa.Schema, fits: Any, usual: tuple[str, str]) -> str:
    """Name of the column of a kind: the one of a usual name, or the only one."""
    found = [field.name for field in schema if fits(field.type)]
    usually = [name for name in usual if name in found]
    if len(found) != 1 and not usually:
        have = f"several: {', '.join(found)}" if found else f"none among {', '.join(schema.names)}"
        raise InvalidInputError(f"{path} should have one column of {what}, such as {usual[0]!r}; it has {have}")
    return usually[0] if usually else found[0]


def _names(schema: pa.Schema, label: str) -> list[str]:
    """Class names by number, if the schema's metadata has them."""
    metadata = schema.metadata or {}
    if b"label_names" in metadata:
        return metadata[b"label_names"].decode().split(",")
    # Hugging Face's ClassLabel; anything else under this key means that the labels are not named
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return list(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return []


def _values(files: list[Path], label: str) -> list[Any]:
    """Distinct labels that occur, sorted."""
    columns = (batch.column(0) for file in files for batch in _batches(file, [label]))
    # in Python, as Arrow's `unique` makes an empty text of a gap in a column of string views
    return sorted({value for column in columns for value in column.to_pylist()} - {None})
