"""Parquet in the layout of a Hugging Face image data set: a struct column with the files' bytes, and a label column."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InvalidInputError

__all__ = ["ImageTable", "find", "image_column", "opened"]

BATCH = 256
"""Rows that are read at a time."""


@dataclass(frozen=True)
class ImageTable:
    """Labelled images in one or several files.

    Attributes
    ----------
    files : list of path
        In the order of their names.
    image, label : str
        The two columns.
    group : str or None
        The column by which images belong together.
    classes : list of C str
        Names of the classes: those that the schema gives, or else the labels that occur, sorted.
    values : list of C labels
        What the label column holds for each.
    n_rows : int
        Images in all files.
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
        """The bytes of every image file (None where the table has none), the number of its class, and its group.

        Raises
        ------
        InvalidInputError
            For a label that is none of the classes, or a damaged file.
        """
        number = {value: i for i, value in enumerate(self.values)}
        for path in self.files:
            for batch in _batches(path, [self.image, self.label, *([self.group] if self.group else [])]):
                for row in batch.to_pylist():
                    if row[self.label] not in number:
                        raise InvalidInputError(f"{path} has the label {row[self.label]!r}, which is no class of it")
                    yield (row[self.image] or {}).get("bytes"), number[row[self.label]], row.get(self.group)


def find(path: Path, group: str | None = None) -> ImageTable:
    """What the schema says of a Parquet file, or of the parts of one split in a folder.

    Parameters
    ----------
    path : path
        File or folder.
    group : str, optional
        The column by which images belong together. Default: "group", if there is one.

    Raises
    ------
    InvalidInputError
        If it is no Parquet, has no column of images or not just one of labels, or no such group.
    """
    files = [path] if path.is_file() else _parts(path)
    schemas, counts = zip(*map(_described, files), strict=True)
    schema = schemas[0]
    image = image_column(schema, files[0])
    label = _pick(files[0], "labels", schema, _holds_labels, ("label", "labels"))
    names = _names(schema, label)
    values = list(range(len(names))) if names else _values(files, label)
    group = _group(schema, group, files[0])
    return ImageTable(files, image, label, group, names or list(map(str, values)), values, sum(counts))


def _described(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows."""
    with opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _parts(folder: Path) -> list[Path]:
    """The files of the one split that a folder holds: NAME.parquet or NAME-00000-of-00002.parquet and so on."""
    files = sorted(folder.glob("*.parquet"))
    splits = sorted({file.stem.partition("-0")[0] for file in files})
    if len(splits) > 1:
        raise InvalidInputError(f"{folder} holds several tables: {', '.join(splits)}; give one file")
    return files


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, open; pyarrow cannot open names that are no UTF-8 by itself.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(stack.enter_context(path.open("rb"))))
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(f"{path} cannot be read as Parquet: {error}") from error
        yield file


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with opened(path) as file:
            yield from file.iter_batches(BATCH, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} is damaged: {error}") from error


def image_column(schema: pa.Schema, path: Path) -> str:
    """The column of {bytes, path} in which Hugging Face's datasets keep images; the path is for the error.

    Raises
    ------
    InvalidInputError
        If there is none, or several and none of them is named "image" or "img".
    """
    return _pick(path, "images", schema, _holds_images, ("image", "img"))


def _holds_images(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return any(is_kind(content) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _holds_labels(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _group(schema: pa.Schema, wanted: str | None, path: Path) -> str | None:
    """The column of groups, if there is one."""
    if wanted is None and "group" not in schema.names:
        return None
    name = wanted or "group"
    usable = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if name not in usable:
        raise InvalidInputError(
            f"{path} has no column {name!r} of single values to group images by; it has {', '.join(usable)}"
        )
    return name


def _pick(path: Path, what: str, schema: pa.Schema, fits: Any, usual: tuple[str, str]) -> str:
    """The column of that kind: by its usual name, or the only one."""
    found = [field.name for field in schema if fits(field.type)]
    usually = [name for name in usual if name in found]
    if len(found) != 1 and not usually:
        have = f"several: {', '.join(found)}" if found else f"none among {', '.join(schema.names)}"
        raise InvalidInputError(f"{path} should have one column of {what}, such as {usual[0]!r}; it has {have}")
    return usually[0] if usually else found[0]


def _names(schema: pa.Schema, label: str) -> list[str]:
    """Class names by number, where the schema's metadata has them."""
    metadata = schema.metadata or {}
    if b"label_names" in metadata:
        return metadata[b"label_names"].decode().split(",")
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return list(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return []


def _values(files: list[Path], label: str) -> list[Any]:
    """The different labels that occur, sorted."""
    columns = (batch.column(0) for file in files for batch in _batches(file, [label]))
    return sorted({value for column in columns for value in column.unique().drop_null().to_pylist()})
