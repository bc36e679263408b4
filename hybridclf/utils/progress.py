"""Progress bars on stderr for terminals, notebooks and log files."""

import os
import sys
from functools import partial
from typing import Any, TextIO

from tqdm.asyncio import tqdm_asyncio
from tqdm.auto import tqdm

__all__ = ["progress_bar"]

SECONDS_PER_LINE = 10.0
"""Seconds between two lines if stderr is no terminal."""


def progress_bar(*args: Any, show: bool, **options: Any) -> tqdm:
    """Make a tqdm bar: redrawn in place on a terminal and in a notebook, elsewhere a line every few seconds.

    Parameters
    ----------
    show : bool
        Show the bar. The environment variable TQDM_DISABLE, unless empty or 0, hides it all the same.
    *args, **options
        Arguments of tqdm.
    """
    # tqdm reads TQDM_DISABLE itself, but an explicit `disable` would override it
    if not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        return _Bar(*args, **options, disable=True)
    in_notebook = tqdm is not tqdm_asyncio  # tqdm.auto has already chosen
    if in_notebook or sys.stderr.isatty():
        return _Bar(*args, **options, disable=False)
    return _Bar(*args, **options, disable=False, file=_Lines(sys.stderr), mininterval=SECONDS_PER_LINE)


class _Bar(tqdm):
    """Bar of one process: another one, which cannot draw it, gets a hidden bar in its place."""

    def __reduce__(self) -> Any:
        return partial(tqdm, disable=True), ()


class _Lines:
    """Text file wrapper that writes each state of a bar as a line, without cursor movements."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.encoding = file.encoding  # tqdm chooses ASCII or Unicode bars by it

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip("\r\n ")
        if line:
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()
