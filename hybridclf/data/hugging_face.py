"""Labelled images from the package datasets: "datasets:NAME?split=test", or the folder of `save_to_disk` for NAME."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ..errors import InvalidInputError
from ..utils.installing import require

__all__ = ["PREFIX", "ImageDataset", "find"]

PREFIX = "datasets:"

OPTIONS = ("split", "config", "image", "label")
"""What may follow a "?": a split, a configuration of a repository, and names of the columns of images and labels."""


_NAMES = "the name of a data set on the hub, or a folder of save_to_disk"


@dataclass(frozen=True)
class ImageDataset:
    """One split of a data set, with its images as bytes or file names, not decoded.

    Attributes
    ----------
    data : datasets.Dataset
        Rows with the columns `image`, `label` and, if there is one, `group`.
    image, label : str
        Names of the two columns.
    group : str or None
        Name of the column of groups.
    classes : list of C str
        Class names.
    values : list of C labels
        Value of each class in the label column.
    local : bool
        True for a folder of the user's, whose images may be files by name; those of a repository are in the cache.
    """

    data: Any
    image: str
    label: str
    group: str | None
    classes: list[str]
    values: list[Any]
    local: bool

    def __len__(self) -> int:
        return len(self.data)

    def rows(self) -> Iterator[tuple[bytes | str | None, int, Any]]:
        """Iterate over the images: the file's bytes or else its name, the class number and the group."""
        number = {value: i for i, value in enumerate(self.values)}
        for row in self.data:
            image = row[self.image] or {}
            group = row[self.group] if self.group else None
            path = image.get("path")
            readable = self.local or (path is not None and _is_cached(path))
            yield image.get("bytes") or (path if readable else None), number[row[self.label]], group

    def class_numbers(self) -> Iterator[int]:
        """Iterate over the class numbers of the images, without reading these."""
        number = {value: i for i, value in enumerate(self.values)}
        return (number[value] for value in self.data[self.label])


def find(source: str, group: str | None = None) -> ImageDataset:
    """Open the split of a data set, from the hub, its cache or a folder. No code of a repository is run.

    Parameters
    ----------
    source : str
        "datasets:NAME", followed by "?split=test" if there are several splits, or other `OPTIONS`:
        "datasets:NAME?split=test&label=fine_label".
    group : str, optional
        Column of groups. Default: "group", if there is one.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    InvalidInputError
        If there is no such data set, split or column, or if it is not clear which column has the images or labels.
    """
    datasets = require("datasets", f"{source} needs", "datasets")
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options, folder = _options(source, query), Path(name).expanduser()
    if not folder.exists() and (name.startswith((".", "~")) or folder.is_absolute() or name.count("/") > 1):
        # no repository is called so, and the hub would be asked again and again
        raise InvalidInputError(f"{source} names no folder that is there; give {_NAMES}")
    try:
        # a repository without configurations has the one that None stands for
        found = datasets.load_from_disk(folder) if folder.is_dir() else datasets.load_dataset(name, options["config"])
    except Exception as error:  # of many kinds, by what the hub answers
        raise InvalidInputError(f"{source} cannot be opened: {error}; give {_NAMES}") from error
    data = _split(source, found, options["split"] or "") if isinstance(found, dict) else found
    images = [n for n, kind in data.features.items() if isinstance(kind, datasets.Image)]
    image = _column(source, data, "image", images, options["image"])
    classes = {n: kind for n, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)}
    known = [n for n in ("label", "labels") if n in data.features]
    likely = [n for n in known if n in classes] or list(classes) or known
    label = _column(source, data, "label", likely, options["label"])
    groups = group or ("group" if "group" in data.features else None)
    if groups is not None and groups not in data.features:
        raise InvalidInputError(f"{source} has no column {groups!r}; it has {', '.join(data.features)}")
    if label in classes:
        names, values = list(classes[label].names), list(range(len(classes[label].names)))
    else:
        values = sorted({value for value in data[label] if value is not None})
        names = list(map(str, values))
    known_values = set(values)
    labelled = [i for i, value in enumerate(data[label]) if value in known_values]
    if not labelled:
        raise InvalidInputError(
            f"{source} has no labels (they are -1 or empty); give a labelled split, as in ?split=train"
        )
    data = data.select(labelled)  # test splits may hide some
    data = data.select_columns([image, label, *([groups] if groups else [])])
    return ImageDataset(
        data.cast_column(image, datasets.Image(decode=False)), image, label, groups, names, values, folder.is_dir()
    )


def _options(source: str, query: str) -> dict[str, str | None]:
    """The value of each of `OPTIONS`; None for those that are not given."""
    given = parse_qsl(query, keep_blank_values=True)
    if query and (not given or not {name for name, _ in given} <= set(OPTIONS)):
        raise InvalidInputError(f"{source} has {query!r} after the question mark; accepted are {', '.join(OPTIONS)}")
    return dict.fromkeys(OPTIONS) | dict(given)


def _is_cached(path: str) -> bool:
    """Tell whether a file that a repository names is one of those downloaded from it."""
    from datasets import config  # type: ignore[import-untyped]
    from huggingface_hub import constants

    folders = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return any(Path(path).resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def _split(source: str, found: Any, split: str) -> Any:
    """The split of that name, or the only one."""
    if not split and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        asked = f"no split {split!r}" if split else "several splits"
        raise InvalidInputError(f"{source} has {asked}; give one of {', '.join(found)}, as in {PREFIX}NAME?split=test")
    return found[split]


def _column(source: str, data: Any, what: str, likely: list[str], asked: str | None) -> str:
    """The column that was asked for, or the only likely one."""
    if asked is not None and asked not in data.features:
        raise InvalidInputError(f"{source} has no column {asked!r}; it has {', '.join(data.features)}")
    if asked is None and len(likely) != 1:
        raise InvalidInputError(
            f"{source} has {len(likely) or 'no'} columns that may be its {what}s, among {', '.join(data.features)}; "
            f"name one, as in {PREFIX}NAME?{what}=COLUMN"
        )
    return asked or likely[0]
