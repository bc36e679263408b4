"""The command line: `hybridclf demo`, `classify` and `serve`. What they do is in the modules that they call."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import __version__
from .errors import HybridClfError

if TYPE_CHECKING:
    from .classify import FileAnswer
    from .metrics import Interval
    from .report import Report, Row

__all__ = ["app"]

app = typer.Typer(
    help="A fast classifier proposes, a diffusion classifier settles what it leaves open.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Our errors say what to do: print them as one line and end with exit code 2."""
    try:
        yield
    except HybridClfError as error:
        typer.echo(f"hybridclf: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hybridclf {__version__}")
        raise typer.Exit


def _console() -> Console:
    """Standard output; as wide as it takes where nobody's window limits it."""
    console = Console()
    return console if console.is_terminal else Console(width=1000)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A fast classifier proposes, a diffusion classifier settles what it leaves open."""


# --- demo -------------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides split, training and noise.")] = 0,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the report and the pictures.")] = Path(
        "demo-report"
    ),
    as_json: AsJson = False,
) -> None:
    """Compare both tiers, alone and together, on handwritten digits; takes about two minutes."""
    with _one_line_errors():
        from . import demo as demonstration
        from .plots import require_matplotlib

        require_matplotlib()  # before the minutes are spent
        out.mkdir(parents=True, exist_ok=True)
        report = demonstration.run(seed)
        files = demonstration.write(report, out)
    if as_json:
        typer.echo(report.to_json())
        return
    console = _console()
    console.print(_report_table(report))
    console.print(f"Fit in {report.fit_seconds:.0f} s, all in {report.seconds:.0f} s.", highlight=False)
    console.print(f"Written: {', '.join(map(str, files))}", highlight=False, markup=False, soft_wrap=True)


def _report_table(report: "Report") -> Table:
    title = f"Handwritten digits, {report.n_train} to train and {report.n_test} to test, seed {report.seed}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method")
    for heading in _CELLS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.table:
        style = "bold" if row is report.table[-1] else None
        table.add_row(row.method, *(cell(row) for cell in _CELLS.values()), style=style)
    return table


def _percent(interval: "Interval") -> str:
    value, low, high = (100 * v for v in (interval.value, interval.low, interval.high))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _short(value: float) -> str:
    """Three digits at least, with an M for millions."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


_CELLS: dict[str, Callable[["Row"], str]] = {
    "accuracy, %\n[95 % interval]": lambda row: _percent(row.accuracy),
    "calib.\nerror": lambda row: "" if row.calibration_error is None else f"{row.calibration_error:.3f}",
    "evalu-\nations": lambda row: _short(row.evaluations),
    "rows": lambda row: _short(row.rows),
    "images\nper s": lambda row: _short(row.images_per_second),
    "no evalu-\nation, %": lambda row: f"{100 * row.no_evaluation:.1f}",
}
"""Columns of the demo's table after the name; evaluations and rows are per image."""


# --- classify ---------------------------------------------------------------------------------------------------------


@app.command()
def classify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Image files, or folders of them.")],
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A saved model; default: the embedded one of digits.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify image files, one line per image; exit code 1 if a file could not be read.

    Images are stretched to the model's size. The embedded model knows bright digits on dark ground.
    """
    with _one_line_errors():
        from .classify import classify_files
        from .estimator import HybridClassifier

        clf = HybridClassifier.from_pretrained("digits") if model is None else HybridClassifier.load(model)
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
    table, failed = Table(box=SIMPLE_HEAD, pad_edge=False), 0
    table.add_column("file", overflow="fold")
    for heading in ("label", "%", "next", "evaluations", "stopped by"):
        table.add_column(heading, justify="right" if heading in ("%", "evaluations") else "left", overflow="fold")
    for answer in answers:
        table.add_row(*map(_text, _cells(answer)), style=None if answer.error is None else "red")
        failed += answer.error is not None
    _console().print(table)
    return failed


def _cells(answer: "FileAnswer") -> list[str]:
    if answer.error is not None:
        return [answer.path, "error", "", "", "", answer.error]
    others = ", ".join(f"{share.label} {100 * share.probability:.1f}" for share in answer.posterior[1:])
    probability = f"{100 * (answer.probability or 0):.1f}"
    return [answer.path, str(answer.label), probability, others, str(answer.evaluations), str(answer.stopped_by)]


def _text(value: str) -> Text:
    """Text to be shown as it is: no markup, and nothing in a file's name that moves the cursor or cannot be encoded."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value))


# --- serve ------------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    model: Annotated[str, typer.Option(metavar="NAME|DIR", help="An embedded model, or a saved one.")] = "digits",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="File of keys, one per line, that may ask.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Denoiser batch; default: the model's.")] = None,
    max_queue: Annotated[int, typer.Option(min=0, help="Images that may wait.")] = 128,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Size of a request.")] = 10 * 2**20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 25_000_000,
    max_documents: Annotated[int, typer.Option(min=1, help="Labels in a request.")] = 100,
) -> None:
    """Rerank and classify over HTTP until SIGTERM; what was accepted by then is answered.

    POST /v1/rerank and /v1/classify, GET /healthz, /readyz and /metrics; /docs has examples.
    """
    with _one_line_errors():
        from . import serving

        limits = serving.Limits(queue=max_queue, body_bytes=max_body_bytes, pixels=max_pixels, documents=max_documents)
        keys = [] if api_key_file is None else serving.read_keys(api_key_file)
        clf = serving.load_model(model)
        clf.batch_size = batch_size or clf.batch_size
        application = serving.create_app(clf, limits, name=Path(model).name, api_keys=keys)
    serving.run(application, host, port)
