"""What the commands have in common: errors in one line, and what is printed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import HybridClfError

__all__ = ["AsJson", "console", "one_line_errors", "short", "text"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Our errors say what to do: print them as one line and end with exit code 2."""
    try:
        yield
    except HybridClfError as error:
        typer.echo(f"hybridclf: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def console() -> Console:
    """Standard output; as wide as it takes where nobody's window limits it."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=1000)


def short(value: float) -> str:
    """Three digits at least, with an M for millions."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def text(value: str) -> Text:
    """Text to be shown as it is: no markup, and nothing in a file's name that moves the cursor or cannot be encoded."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value))
