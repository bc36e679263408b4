"""`hybridclf batch`."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import InvalidInputError
from .shared import OFF, AsJson, Device, Quiet, console, running, short, text

if TYPE_CHECKING:
    from ..batch import Engine, Summary

_SEVERAL_PRECISIONS = (
    "Processors of different kinds did parts of OUTPUT: tier 2 computed in {}, and posteriors differ a little. For one "
    'type on all of them, save the model from HybridClassifier.load(DIR, dtype="float32") and give a new OUTPUT.'
)


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="A folder of images, Parquet files or tar archives, or one of these files; or s3://…"
        ),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Folder or s3://… for the parts: a new one, or one to resume.")
    ],
    model: Annotated[str, typer.Option(metavar="NAME|DIR", help="An embedded model, or a saved one.")],
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or actors on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The cluster: auto or HOST:PORT; default: one started here.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Ray actors; default: one per GPU, or per core where there is none.")
    ] = None,
    decode_seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest time to decode an image; beyond, it is a row with an error.")
    ] = 5.0,
    max_errors: Annotated[
        int | None, typer.Option(min=0, help="Images that may have an error; with more, the exit code is 1.")
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Classify many images into Parquet parts; killed and started again, it goes on where it was.

    An image that cannot be read is a row with an error; if none could be read, the exit code is 1.
    """
    with running(quiet, lambda: "interrupted; what is done is kept: repeat the command to go on"):
        from .. import batch as batches
        from ..persistence import read_description
        from ..pretrained.catalog import model_folder

        with redirect_stdout(sys.stderr):  # Ray prints notes of its machines, which would break --json
            summary = batches.run(
                source, output, model, _engine(engine, address, actors), not quiet, device, decode_seconds
            )
        if not (quiet or read_description(model_folder(model)).get("asks_tier_2", True)):
            typer.echo(OFF, err=True)
        elif not quiet and len(summary.precisions) > 1:
            typer.echo(_SEVERAL_PRECISIONS.format(" and in ".join(summary.precisions)), err=True)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        console().print(text(_summary_line(summary)))
        for line in summary.first_errors:
            console().print(text(f"  {line}"), soft_wrap=True)
        if summary.errors > len(summary.first_errors):
            console().print(text("  and more: every row with an error has it in the column error"), soft_wrap=True)
    # a batch of which nothing was answered is a failure, whatever was allowed
    if summary.errors > (summary.images - 1 if max_errors is None else min(max_errors, summary.images - 1)):
        typer.echo(f"hybridclf: {summary.errors:,} of {summary.images:,} images have an error", err=True)
        raise typer.Exit(1)


def _engine(name: str, address: str | None, actors: int | None) -> "Engine":
    from .. import plugins
    from ..batch import local

    # the adapter of the spec string "ray:ADDRESS", so that the core need not import Ray
    if name != "local":
        return plugins.load("engine", f"{name}:{address or 'local'}", actors=actors)
    if address is not None or actors is not None:
        raise InvalidInputError("--address and --actors are for a cluster; add --engine ray")
    return local


def _summary_line(summary: "Summary") -> str:
    cost = "" if summary.evaluations is None else f", {short(summary.evaluations)} evaluations per image"
    return (
        f"{summary.images:,} images in {summary.output}, {summary.errors:,} with an error{cost}; "
        f"{summary.images - summary.done_before:,} of them in this run, {short(summary.images_per_second)} images/s"
    )
