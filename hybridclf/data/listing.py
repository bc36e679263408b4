"""Labelled images listed, not decoded yet: a folder per class, Parquet, CSV, datasets, or scikit-learn's digits."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from ..atomic import in_utf8
from ..errors import InvalidInputError
from . import hugging_face, parquet
from .image_files import image_paths, open_image

__all__ = ["DIGITS", "Item", "Listing", "list_labelled"]

DIGITS = "digits"
"""Name of scikit-learn's handwritten digits, given in place of a path."""

_SPLITS = {"train", "test", "val", "valid", "validation"}
_LAYOUT = (
    "a folder with a subfolder of images per class, a Parquet file of images, a CSV file of paths and labels, "
    "datasets:NAME, or digits"
)


class Item(NamedTuple):
    """One image, not decoded yet."""

    name: str
    open: Callable[[], Image.Image]
    y: int
    group: Any = None


@dataclass(frozen=True)
class Listing:
    """The n items of a data set, not decoded yet, and its classes; the items can be iterated over again."""

    items: "Sequence[Item] | _Rows"
    n: int
    classes: list[str]

    def class_numbers(self) -> Iterator[int]:
        """Iterate over the class numbers of the items; of a table, without reading its images."""
        return self.items.table.class_numbers() if isinstance(self.items, _Rows) else (item.y for item in self.items)


def list_labelled(source: str | Path, group: str | None = None) -> Listing:
    """List labelled images without decoding any.

    Parameters
    ----------
    source : path or "digits"
        A folder with a subfolder per class (images anywhere in it count, hidden ones and other files do not), a Parquet
        file in the layout of a Hugging Face image data set or the folder of its parts, a CSV file with columns "path"
        (from the folder that it lies in) and "label", "datasets:NAME?split=test" for a data set of the package datasets
        (on the hub, or a folder of its `save_to_disk`), or scikit-learn's digits.
    group : str, optional
        Column of groups, such as the film that a frame is from. Default: "group", if there is one.

    Returns
    -------
    Listing

    Raises
    ------
    InvalidInputError
        If there are fewer than two classes or two of one name, the source is none of these, the column is missing, or
        none of the files that a CSV file names is there.
    """
    found = _find(source, group)
    _check_classes(source, found)
    return found


def _find(source: str | Path, group: str | None) -> Listing:
    """Find the items of a data set by the kind of its source."""
    if isinstance(source, str) and source.startswith(hugging_face.PREFIX):
        data = hugging_face.find(source, group)
        return Listing(_Rows(source, data), len(data), data.classes)
    path = Path(source)
    if source != DIGITS and not path.exists():
        raise InvalidInputError(f"there is no {path}; give {_LAYOUT}")
    if path.suffix.lower() == ".csv" and path.is_file():
        return _in_csv(path, group)
    if source != DIGITS and (path.is_file() or any(path.glob("*.parquet"))):
        _check_parquet(path)
        table = parquet.find(path, group)
        return Listing(_Rows(table.name, table), table.n_rows, table.classes)
    if group is not None:
        raise InvalidInputError(f"{source} has no column {group!r}; only Parquet and CSV have columns to group by")
    if source == DIGITS:
        return _digits()
    return _in_folders(path)


def _check_parquet(path: Path) -> None:
    """Refuse a file that is no Parquet by its ending, nor by its first bytes: it is another kind, and not damaged."""
    if path.suffix.lower() == ".parquet":
        return
    with suppress(OSError), path.open("rb") as file:  # its error comes when it is read
        if file.read(4) != b"PAR1":
            captions = ", or captions in .jsonl to evaluate" if path.suffix.lower().startswith(".json") else ""
            raise InvalidInputError(
                f"{path} is neither a folder, nor .parquet, nor .csv (with commas); give {_LAYOUT}{captions}"
            )


def _digits() -> Listing:
    """List scikit-learn's digits, their 0 to 16 scaled to 8 bits."""
    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in digits.images]
    labelled = enumerate(zip(images, digits.target.tolist(), strict=True))
    items = [Item(f"digit {i}", image.copy, y) for i, (image, y) in labelled]
    return Listing(items, len(items), [str(name) for name in digits.target_names])


def _in_folders(path: Path) -> Listing:
    """List the images of a folder that has one subfolder per class."""
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = [in_utf8(folder.name) for folder in folders]
    if not folders:
        raise InvalidInputError(f"{path} has no subfolders; give {_LAYOUT}")
    # the folder above the classes: its train and test would become the two classes
    if len(names) > 1 and _SPLITS.issuperset(name.lower() for name in names):
        raise InvalidInputError(f"{path} holds {', '.join(names)}, which are no classes; give {folders[0]} or the like")
    items = []
    for y, folder in enumerate(folders):
        files = image_paths([folder])
        if files == [folder]:  # image_paths hands an empty folder back
            raise InvalidInputError(f"class {folder.name!r} has no image in {folder}; add some, or remove the folder")
        items += [Item(str(file), partial(open_image, file), y) for file in files]
    return Listing(items, len(items), names)


@dataclass(frozen=True)
class _Rows:
    """The items of a table, read anew by every iteration: their bytes need not all be in memory."""

    name: str
    table: parquet.ImageTable | hugging_face.ImageDataset

    def __iter__(self) -> Iterator[Item]:
        for i, (content, y, group) in enumerate(self.table.rows()):
            yield Item(f"{self.name}, row {i}", partial(_decode, content), y, group)


def _decode(content: bytes | str | None) -> Image.Image:
    if not content:
        raise InvalidInputError("it has no bytes; files that a table only names are not followed")
    return open_image(Path(content) if isinstance(content, str) else BytesIO(content))


def _in_csv(path: Path, group: str | None) -> Listing:
    """List the files that a CSV file names; a name that is not absolute starts at its folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    wanted = ["path", "label", *([group] if group else [])]
    if missing := [name for name in wanted if name not in columns]:
        raise InvalidInputError(
            f"{path} has no column {missing[0]!r}; its first line must name {', '.join(map(repr, wanted))}, separated "
            f"by commas, and it has {', '.join(map(repr, columns)) or 'no line'}"
        )
    for line, row in rows:
        if not row["label"]:
            raise InvalidInputError(f"{path}, line {line}: {row['path']!r} has no label; give every image one")
    if rows and not any(os.path.exists(path.parent / row["path"]) for _, row in rows):
        first = rows[0][1]["path"]
        raise InvalidInputError(
            f"none of the files that {path} names is there: paths start at its own folder, so that {first!r} is "
            f"{path.parent.resolve() / first}; move the CSV, or write other paths"
        )
    classes = sorted({row["label"] for _, row in rows})
    number = {name: i for i, name in enumerate(classes)}
    items = [
        Item(file, partial(open_image, path.parent / file), number[row["label"]], row.get(group or "group") or None)
        for _, row in rows
        for file in [row["path"]]
    ]
    return Listing(items, len(items), classes)


def _check_classes(source: str | Path, found: Listing) -> None:
    """Refuse fewer than two classes, and two classes of one name."""
    if len(found.classes) < 2:
        raise InvalidInputError(
            f"{source} holds {' and '.join(map(repr, found.classes)) or 'no class'}; a classifier needs at least 2 "
            f"classes: give {_LAYOUT}"
        )
    twice = next((name for name in found.classes if found.classes.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"{source} has several classes named {twice!r}; rename all but one")
