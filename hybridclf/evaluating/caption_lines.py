"""Pictures and captions that belong together, one JSON object a line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..captions import check_captions
from ..errors import InvalidInputError

__all__ = ["CaptionLine", "Unreadable", "read_lines"]

MAX_LINE = 2**16
"""Characters in a line at most."""

MAX_EACH = 100
"""Images, and captions, of one line at most."""

_FORMS = (
    '{"image": PATH, "caption": RIGHT, "wrong": [CAPTION, …]}, {"images": [A, B], "captions": [OF A, OF B]} or '
    '{"images": [RIGHT, WRONG, …], "caption": CAPTION}, and "kind": NAME where rows are to be apart'
)


@dataclass(frozen=True)
class Unreadable:
    """A line that is left out: its number, from 1 on, and what is wrong with it."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class CaptionLine:
    """m images and k captions; caption i is that of image i, and what goes beyond the shorter list is wrong.

    One image with five captions has the first as the right one; two images with two captions are a Winoground example.

    Attributes
    ----------
    line : int
        Its number in the file, from 1 on.
    images : tuple of path `[m]`
        Image files.
    captions : tuple of str `[k]`
        Captions.
    kind : str
        Row of the table that it counts in; "" for none of its own.
    """

    line: int
    images: tuple[Path, ...]
    captions: tuple[str, ...]
    kind: str = ""

    @property
    def n_right(self) -> int:
        """Images that have a caption of their own here, min(m, k)."""
        return min(len(self.images), len(self.captions))


def read_lines(source: str | Path) -> tuple[list[CaptionLine], list[Unreadable]]:
    """Read a JSON Lines file of images and captions; image files are not opened yet.

    Parameters
    ----------
    source : path
        Lines in one of three forms: {"image", "caption", "wrong"}, one right caption and any number of wrong ones;
        {"images", "captions"}, as many of each, which belong together in this order; {"images", "caption"}, the right
        image and any number of wrong ones. An optional "kind" names the row of the table. Paths start at the file's
        folder.

    Returns
    -------
    list of CaptionLine
        The lines that can be used.
    list of Unreadable
        The others; empty lines are neither.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or no line of it can be used.
    """
    lines: list[CaptionLine] = []
    unreadable: list[Unreadable] = []
    try:
        with Path(source).open(encoding="utf-8-sig", errors="replace") as file:
            for number, text in enumerate(file, 1):
                try:
                    if text.strip():
                        lines.append(_line(number, text, Path(source).parent))
                except InvalidInputError as error:
                    unreadable.append(Unreadable(number, str(error)))
    except OSError as error:
        raise InvalidInputError(f"{source} cannot be read: {error.strerror or error}") from error
    if not lines:
        reasons = "; ".join(map(str, unreadable[:3])) or "it is empty"
        raise InvalidInputError(f"{source} has no line that can be used: {reasons}. A line is {_FORMS}")
    return lines, unreadable


def _line(number: int, text: str, folder: Path) -> CaptionLine:
    try:
        found = json.loads(text) if len(text) <= MAX_LINE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInputError(f"not a JSON object in at most {MAX_LINE:,} characters")
    images, captions = _both(found)
    kind = found.get("kind") or ""
    if not isinstance(kind, str):
        raise InvalidInputError(f'"kind" must be a text, got {kind!r}')
    (texts,) = check_captions([captions], 1)
    return CaptionLine(number, tuple(folder / image for image in images), texts, kind)


def _both(found: dict[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    """Images and captions of a line in one of the three forms."""
    forms = {
        frozenset({"image", "caption", "wrong"}): lambda f: ([f["image"]], [f["caption"], *_texts(f["wrong"])]),
        frozenset({"images", "captions"}): lambda f: (_texts(f["images"]), _texts(f["captions"])),
        frozenset({"images", "caption"}): lambda f: (_texts(f["images"]), [f["caption"]]),
    }
    fields = frozenset(found.keys() & frozenset().union(*forms))
    if fields not in forms:
        raise InvalidInputError(f"it has {', '.join(map(repr, found)) or 'no field'}; a line is {_FORMS}")
    images, captions = forms[fields](found)
    if not all(isinstance(image, str) and image for image in images):
        raise InvalidInputError(f"an image must be the path of a file, got {images!r}")
    both = "images" in fields and "captions" in fields
    if max(len(images), len(captions)) not in range(2, MAX_EACH + 1) or (both and len(images) != len(captions)):
        raise InvalidInputError(
            f"it has {len(images)} images and {len(captions)} captions; there must be something to choose from, at "
            f'most {MAX_EACH} of each, and as many "images" as "captions"'
        )
    return images, captions


def _texts(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInputError(f"a list of texts is needed, got {value!r}")
    return value
