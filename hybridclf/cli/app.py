"""`hybridclf app`."""

from pathlib import Path
from typing import Annotated

import typer

from .shared import Device, Quiet, running


def show_page(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: cifar10, photographs."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Show a page on which to drop a picture and watch its race, until Ctrl-C."""
    with running(quiet):
        from ..pretrained.catalog import DEFAULT_MODEL
        from ..utils.installing import require
        from .classifier import choose_classifier

        require("gradio", "the page needs", "app")  # before a model is loaded
        from ..app.page import launch

        launch(choose_classifier(model, device=device), Path(model or DEFAULT_MODEL).name, host, port, quiet)
