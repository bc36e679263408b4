"""What the commands have in common: how they end, and what is printed."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from ..errors import HybridClfError

__all__ = ["ENDLESS", "AsJson", "Device", "Quiet", "console", "running", "short", "text"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: the model's own.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show neither progress nor notes.")]

ENDLESS = 1_000_000
"""Columns of what is no terminal."""


@contextmanager
def running(quiet: bool = False, when_interrupted: Callable[[], str] = lambda: "interrupted") -> Iterator[None]:
    """Run what a command does; what goes wrong for a reason that its user can mend is told in one line.

    That is exit code 2 for our errors and the system's, and 130 for Ctrl-C.

    Parameters
    ----------
    quiet : bool
        Whether to hide warnings and the progress bars of libraries.
    when_interrupted : function
        Makes the line to be printed at Ctrl-C.
    """
    try:
        with warnings.catch_warnings(), _bars_of_libraries(shown=not quiet and sys.stderr.isatty()):
            if quiet:
                warnings.simplefilter("ignore")
            yield
    except HybridClfError as error:
        _end(str(error), 2)
    except BrokenPipeError:  # nobody reads on: the program ends without a word
        raise
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
    except KeyboardInterrupt:
        _end(when_interrupted(), 130)


def _end(message: str, code: int) -> NoReturn:
    typer.echo(f"hybridclf: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@contextmanager
def _bars_of_libraries(shown: bool) -> Iterator[None]:
    """Hide the bars of what says nothing of it itself: they are made of carriage returns, in a log too."""
    from tqdm import tqdm

    theirs = vars(tqdm)["__init__"]
    if not shown:
        tqdm.__init__ = partialmethod(theirs, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = theirs


def console() -> Console:
    """Standard output; of a terminal's width, or without end where it is none."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=ENDLESS)


def short(value: float) -> str:
    """Three digits at least, with an M for millions."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def text(value: str) -> Text:
    """Text to be shown as it is: no markup; what moves a cursor, or cannot be printed here, as \\x1b and the like."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    encoding = sys.stdout.encoding or "utf-8"
    return Text(printable.encode(encoding, "backslashreplace").decode(encoding))
