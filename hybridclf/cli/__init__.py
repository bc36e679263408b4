"""The command line: `hybridclf demo`, `classify` and so on. What they do is in the modules that they call."""

from typing import Annotated

import typer

from .. import __version__
from .batch import batch
from .classify import classify
from .demo import demo
from .models import models
from .serve import serve
from .train import train

__all__ = ["app"]

app = typer.Typer(
    help="A fast classifier proposes, a diffusion classifier settles what it leaves open.",
    no_args_is_help=True,
    add_completion=False,
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


for command in (demo, classify, train, batch, serve, models):
    app.command()(command)
