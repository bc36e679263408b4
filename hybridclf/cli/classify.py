"""`hybridclf classify`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .shared import AsJson, console, one_line_errors, text

if TYPE_CHECKING:
    from ..classify import FileAnswer


def classify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Image files, or folders of them.")],
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Labels to tell apart; default: the model's own.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Makes a prompt of a label, which goes where {} is.")
    ] = None,
    proposer: Annotated[str | None, typer.Option(metavar="SPEC", help="Tier 1 by name, beside --denoiser.")] = None,
    denoiser: Annotated[str | None, typer.Option(metavar="SPEC", help="Tier 2 by name, beside --proposer.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Candidates that tier 1 hands over.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: cifar10, photographs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify image files, one line per image; exit code 1 if a file could not be read.

    Models, and what to type for SPEC: see hybridclf models.
    """
    with one_line_errors():
        from ..classify import choose_classifier, classify_files

        names = None if labels is None else [name.strip() for name in labels.split(",")]
        clf = choose_classifier(model, names, template, proposer, denoiser, top_k).set_params(verbose=True)
        answers = classify_files(clf, paths)
        failed = _print_lines(answers) if as_json else _print_table(answers)
    if failed:
        raise typer.Exit(1)


def _print_lines(answers: "Iterable[FileAnswer]") -> int:
    """One JSON object per line, as soon as it is known; how many are errors."""
    failed = 0
    for answer in answers:
        typer.echo(json.dumps(asdict(answer)))
        failed += answer.error is not None
    return failed


def _print_table(answers: "Iterable[FileAnswer]") -> int:
    """A table of all answers; how many are errors."""
    table, failed, spent = Table(box=SIMPLE_HEAD, pad_edge=False), 0, 0
    table.add_column("file", overflow="fold")
    for heading in ("label", "%", "next", "evaluations", "stopped by"):
        table.add_column(heading, justify="right" if heading in ("%", "evaluations") else "left", overflow="fold")
    for answer in answers:
        table.add_row(*map(text, _cells(answer)), style=None if answer.error is None else "red")
        failed += answer.error is not None
        spent += answer.evaluations or 0
    console().print(table)
    console().print(f"{table.row_count - failed} images, {spent:,} evaluations", highlight=False)
    return failed


def _cells(answer: "FileAnswer") -> list[str]:
    if answer.error is not None:
        return [answer.path, "error", "", "", "", answer.error]
    others = ", ".join(f"{share.label} {100 * share.probability:.1f}" for share in answer.posterior[1:])
    probability = f"{100 * (answer.probability or 0):.1f}"
    return [answer.path, str(answer.label), probability, others, str(answer.evaluations), str(answer.stopped_by)]
