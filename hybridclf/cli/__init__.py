"""Command line: a thin layer of options and printing over the modules that do the work."""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .app import show_page
from .batch import batch
from .calibrate import calibrate
from .classify import classify
from .demo import demo
from .evaluate import evaluate
from .models import models
from .serve import serve
from .synthesize import synthesize
from .train import train
from .tune import tune

__all__ = ["app"]


class _Program(TyperGroup):
    """Command group that escapes characters missing from the output's encoding, as \\xff and the like."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # file names may have any bytes, and a crash while printing would lose the answers
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)


app = typer.Typer(
    cls=_Program,
    help="A fast classifier proposes, a diffusion classifier settles what it leaves open.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hybridclf {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A fast classifier proposes, a diffusion classifier settles what it leaves open."""


for command in (demo, classify, train, tune, evaluate, calibrate, synthesize, batch, serve, models):
    app.command()(command)
app.command("app")(show_page)
