"""Shared parts of the commands: options, exit codes and printing."""

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

__all__ = ["ENDLESS", "OFF", "AsJson", "Device", "Quiet", "console", "running", "short", "text"]

OFF = (
    "Re-ranking is off in this model, and tier 1 answers alone: no held-out images have shown that it pays (in Python: "
    "print(clf.worth_))."
)
"""Note on a classifier that does not ask tier 2."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: the model's own.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show neither progress nor notes.")]

ENDLESS = 1_000_000
"""Width in columns of an output that is no terminal."""


@contextmanager
def running(quiet: bool = False, when_interrupted: Callable[[], str] = lambda: "interrupted") -> Iterator[None]:
    """Run a command's work in a `with` block, and turn errors that its user can mend into one line.

    The exit code is 2 for our errors and the system's, and 130 for Ctrl-C.

    Parameters
    ----------
    quiet : bool
        Hide warnings and the progress bars of libraries.
    when_interrupted : function
        Returns the line to print at Ctrl-C.
    """
    try:
        with warnings.catch_warnings(), _bars_of_libraries(shown=not quiet and sys.stderr.isatty()):
            if quiet:
                warnings.simplefilter("ignore")
            yield
    except HybridClfError as error:
        _end(str(error), 2)
    except BrokenPipeError:  # the reader has gone, as in `| head`: end silently
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
    """Hide the progress bars of libraries without such an option; in a log they would be a mess of carriage returns."""
    from tqdm import tqdm

    # all tqdm classes share this constructor; it is restored afterwards
    theirs = vars(tqdm)["__init__"]
    if not shown:
        tqdm.__init__ = partialmethod(theirs, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = theirs


def console() -> Console:
    """Console on standard output, of the terminal's width, or practically endless if it is no terminal."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=ENDLESS)


def short(value: float) -> str:
    """Format a number for a table: 8.5, 1,234 or 1.2 M."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def text(value: str) -> Text:
    """Make text to print as it is: no markup, and unprintable characters escaped, as \\x1b and the like."""
    # a file's name may hold escape sequences of the terminal
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    encoding = sys.stdout.encoding or "utf-8"
    return Text(printable.encode(encoding, "backslashreplace").decode(encoding))
