"""Progress bars on stderr that suit what it is: a terminal, a notebook or a file."""

import os
import sys
from typing import Any, TextIO

from tqdm.asyncio import tqdm_asyncio
from tqdm.auto import tqdm

__all__ = ["progress_bar"]

SECONDS_PER_LINE = 10.0
"""Time from one line to the next where stderr is no terminal."""


def progress_bar(*args: Any, show: bool, **options: Any) -> tqdm:
    """A tqdm bar that is redrawn on a terminal and in a notebook; elsewhere a line every few seconds.

    Parameters
    ----------
    show : bool
        Whether to show it. The environment variable TQDM_DISABLE, unless it is empty or 0, hides it all the same.
    *args, **options
        As for tqdm.
    """
    if not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        return tqdm(*args, **options, disable=True)
    in_notebook = tqdm is not tqdm_asyncio
    if in_notebook or sys.stderr.isatty():
        return tqdm(*args, **options, disable=False)
    return tqdm(*args, **options, disable=False, file=_Lines(sys.stderr), mininterval=SECONDS_PER_LINE)


class _Lines:
    """A file that gets each state of a bar as a line, with nothing that moves a cursor."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.encoding = file.encoding  # by which tqdm chooses its characters

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip("\r\n ")
        if line:
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()
