"""`hybridclf classify`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from ..errors import InvalidInputError
from .shared import ENDLESS, OFF, Device, Quiet, console, running, text

if TYPE_CHECKING:
    from ..batch.answers import FileAnswer
    from ..estimator import HybridClassifier

UNNAMED_REJECTS = 0.01
"""Rate at which the model that answers where none is named rejects pictures: nobody chose its classes."""


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
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            min=0,
            max=1,
            help="Reject images unlike all classes, at that rate of false alarms, for one trial more; 0 for none. "
            "Default: 0.01 where no model is named, else the model's own.",
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Folder for a picture per image: why this class, not that?"),
    ] = None,
    counterfactual: Annotated[
        bool,
        typer.Option("--counterfactual", help="With --explain: also how it would look in that class, 250 evaluations."),
    ] = False,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines instead of a table: one object per image, each on a line.")
    ] = False,
) -> None:
    """Classify image files, one line per image; exit code 1 if a file could not be read.

    Models, and what to type for SPEC: see hybridclf models.
    """
    with running(quiet):
        from ..batch.answers import classify_files, errors_of_missing
        from ..counterfactual import decoding
        from ..data.image_files import image_paths
        from ..demo.style import require_matplotlib
        from ..fitting.outliers import novelty_test
        from .classifier import choose_classifier

        if counterfactual and explain is None:
            raise InvalidInputError("--counterfactual is a part of the pictures of --explain DIR; give both")
        names = None if labels is None else [name.strip() for name in labels.split(",")]
        # once, as listing a large folder takes time
        files = image_paths(paths)
        answers: Iterable[FileAnswer] = errors_of_missing(files)  # before a model is loaded
        if explain is not None:
            require_matplotlib()
            explain.mkdir(parents=True, exist_ok=True)
        if not answers:
            clf = choose_classifier(model, names, template, proposer, denoiser, top_k, device)
            if counterfactual:
                decoding(clf.denoiser_)  # before the images are asked about
            if model is proposer is None:
                if reject is None and names is None:
                    reject = UNNAMED_REJECTS
                if not (quiet or as_json):
                    _print_limits(clf, reject)
            if not (quiet or clf.fusion_.pays):
                typer.echo(OFF, err=True)
            if reject is not None:
                clf.set_params(reject=reject or None)
            if reject:
                novelty_test(clf)
            clf.set_params(verbose=not quiet)
            answers = classify_files(clf, files)
            if explain is not None:
                answers = list(answers)
                _explain(clf, answers, explain, counterfactual, progress=not quiet)
        failed = _print_lines(answers) if as_json else _print_table(answers, console())
    if failed:
        raise typer.Exit(1)


def _explain(
    clf: "HybridClassifier", answers: "Sequence[FileAnswer]", folder: Path, counterfactual: bool, progress: bool
) -> None:
    """Draw why each image that was read has its class and not the next one; if asked, the image changed to it, too."""
    from ..data.image_files import read_pictures
    from ..demo.explanations import draw_explanation
    from ..utils.progress import progress_bar

    clf.set_params(verbose=False)
    read = [answer for answer in answers if answer.error is None]
    for i, answer in enumerate(progress_bar(read, desc="explain", unit="image", show=progress)):
        (image,) = read_pictures([answer.path], clf.image_shape_)
        path = folder / f"{i:05}-{Path(answer.path).stem}.png"  # two files may have one name
        try:
            why = clf.explain(image)
        except InvalidInputError as error:
            typer.echo(f"{answer.path} is not explained: {error}", err=True)
            continue
        changed = None
        try:
            changed = clf.counterfactual(image, why.a, why.b) if counterfactual else None
        except InvalidInputError as error:
            typer.echo(f"{answer.path} has no counterfactual: {error}", err=True)
        draw_explanation(why, image, changed).savefig(path)


def _print_limits(clf: "HybridClassifier", reject: float | None) -> None:
    """Warn that the default model knows its own classes only."""
    from ..pretrained.catalog import DEFAULT_MODEL

    others = (
        ". Some other pictures it finds to be none of these; --reject 0 forces them into one"
        if reject
        else " and forces whatever else a picture shows into one of these"
    )
    typer.echo(
        f"No --model is named, so {DEFAULT_MODEL} answers: it knows {', '.join(clf.classes_)}{others}.", err=True
    )


def _print_lines(answers: "Iterable[FileAnswer]") -> int:
    """Print a JSON object per answer as soon as it comes, and return the number of errors."""
    failed = 0
    for answer in answers:
        typer.echo(json.dumps(asdict(answer)))
        failed += answer.error is not None
    return failed


def _print_table(answers: "Iterable[FileAnswer]", screen: Console) -> int:
    """Print all answers, in a table if it fits without breaking a name, and return the number of errors."""
    answers = list(answers)
    # the labels after the first one in a line, or below each other in a narrower table
    tables = (_table(answers, separator) for separator in (", ", ",\n"))
    # measured on an endless console, as a narrow one would shrink a table first
    endless = Console(width=ENDLESS)
    fitting = next((table for table in tables if endless.measure(table).minimum <= screen.width), None)
    if fitting is not None:
        screen.print(fitting)
    else:
        for answer in answers:
            screen.print(_paragraph(answer), soft_wrap=True)
    failed = sum(answer.error is not None for answer in answers)
    spent = sum(answer.evaluations or 0 for answer in answers)
    screen.print(f"{len(answers) - failed} images, {spent:,} evaluations")
    return failed


def _table(answers: "Sequence[FileAnswer]", separator: str) -> Table:
    """Make a table with a row per answer, in which only the reason of an error may be wrapped."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    rows = [_cells(answer, separator) for answer in answers]
    for heading, cells in zip(("file", "label", "%", "next", "evaluations"), zip(*rows, strict=True), strict=False):
        # no column is narrower than its longest line, so that names are never broken
        width = max(len(heading), *(line.cell_len for cell in cells for line in cell.split()))
        justify: JustifyMethod = "right" if heading in ("%", "evaluations") else "left"
        table.add_column(heading, justify=justify, no_wrap=True, min_width=width)
    table.add_column("stopped by")
    for answer, row in zip(answers, rows, strict=True):
        table.add_row(*row, style=None if answer.error is None else "red")
    return table


def _paragraph(answer: "FileAnswer") -> Text:
    """Format an answer for a narrow terminal: the file, and below it a line for each cell of a table's row."""
    path, label, probability, others, evaluations, reason = _cells(answer, "\n  ")
    if answer.error is not None:
        return Text("\n  ").join([path, Text("error: ") + reason])
    first = Text(f"{label} {probability} %" if probability else str(label))
    cost = Text(f"{evaluations} evaluations, {reason}")
    return Text("\n  ").join([path, first, *([others] if others else []), cost])


def _cells(answer: "FileAnswer", separator: str) -> list[Text]:
    if answer.error is not None:
        return list(map(text, [answer.path, "error", "", "", "", answer.error]))
    likeliest = [text(f"{entry.label} {100 * entry.probability:.1f}") for entry in answer.posterior]
    label = "none of these" if answer.label is None else str(answer.label)
    others = likeliest[0 if answer.probability is None else 1 :]
    return [
        text(answer.path),
        text(label),
        Text("" if answer.probability is None else f"{100 * answer.probability:.1f}"),
        Text(separator).join(others),
        Text(str(answer.evaluations)),
        Text(str(answer.stopped_by)),
    ]
