"""The command line: `hybridclf demo`, `classify` and so on. What they do is in the modules that they call."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import __version__
from .errors import HybridClfError, InvalidInputError

if TYPE_CHECKING:
    from .batch import Engine, Summary
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
        typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: digits, or shapes with --labels."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify image files, one line per image; exit code 1 if a file could not be read.

    Models, and what to type for SPEC: see hybridclf models.
    """
    with _one_line_errors():
        from .classify import choose_classifier, classify_files

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
        table.add_row(*map(_text, _cells(answer)), style=None if answer.error is None else "red")
        failed += answer.error is not None
        spent += answer.evaluations or 0
    _console().print(table)
    _console().print(f"{table.row_count - failed} images, {spent:,} evaluations", highlight=False)
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


# --- batch ------------------------------------------------------------------------------------------------------------


@app.command()
def batch(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A folder of images or Parquet files, or one Parquet file.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for the parts: a new one, or one to resume.")
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
    as_json: AsJson = False,
) -> None:
    """Classify many images into Parquet parts; killed and started again, it goes on where it was.

    An image that cannot be read is a row with an error.
    """
    with _one_line_errors():
        from . import batch as batches

        with redirect_stdout(sys.stderr):  # where Ray tells of its machines
            summary = batches.run(source, output, model, _engine(engine, address, actors), progress=True)
    typer.echo(json.dumps(asdict(summary)) if as_json else _summary_line(summary))


def _engine(name: str, address: str | None, actors: int | None) -> "Engine":
    from . import plugins
    from .batch import local

    if name != "local":
        return plugins.load("engine", f"{name}:{address or 'local'}", actors=actors)
    if address is not None or actors is not None:
        raise InvalidInputError("--address and --actors are for a cluster; add --engine ray")
    return local


def _summary_line(summary: "Summary") -> str:
    cost = "" if summary.evaluations is None else f", {_short(summary.evaluations)} evaluations per image"
    return (
        f"{summary.images:,} images in {summary.output}, {summary.errors:,} with an error{cost}; "
        f"{summary.images - summary.done_before:,} of them in this run, {_short(summary.images_per_second)} images/s"
    )


# --- models -----------------------------------------------------------------------------------------------------------


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the embedded models, and the adapters with what their spec strings look like."""
    from . import catalog

    embedded, adapters = catalog.models(), catalog.adapters()
    if as_json:
        listed = {"models": list(map(asdict, embedded)), "adapters": list(map(asdict, adapters))}
        typer.echo(json.dumps(listed))
        return
    _print_list(("model", "what it knows"), [(model.name, model.about) for model in embedded])
    _print_list(("tier", "adapter", "spec strings"), [(a.tier, a.name, a.about) for a in adapters])


def _print_list(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(_text, row))
    _console().print(table)


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
        from .estimator import HybridClassifier

        limits = serving.Limits(queue=max_queue, body_bytes=max_body_bytes, pixels=max_pixels, documents=max_documents)
        keys = [] if api_key_file is None else serving.read_keys(api_key_file)
        clf = HybridClassifier.from_pretrained(model)
        clf.batch_size = batch_size or clf.batch_size
        application = serving.create_app(clf, limits, name=Path(model).name, api_keys=keys)
    serving.run(application, host, port)


# --- train ------------------------------------------------------------------------------------------------------------


@app.command()
def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Folder with a subfolder of images per class, Parquet file, or digits."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.", file_okay=False)],
    minutes: Annotated[float | None, typer.Option(help="Time to train for; default: 30.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")] = False,
    wrong_class_weight: Annotated[
        float | None, typer.Option(help="Of the denoiser's wrong-class term; default: 1, 0: none.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side that images are stretched to: 8 or a multiple of 16; default: 32.")
    ] = None,
    val: Annotated[float | None, typer.Option(help="Share of the images held out; default: 0.1.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a classifier on your own images, for use with: hybridclf classify --model OUT

    Interrupt it when you like: --resume goes on as if nothing had happened. Losses and a picture are in OUT/training.
    """
    with _one_line_errors():
        from .pair import train_pair

        settings = {"minutes": minutes, "wrong_class_weight": wrong_class_weight, "image_size": image_size}
        train_pair(data, out, resume=resume, device=device, progress=True, validation_fraction=val, **settings)
    _print_training(json.loads((out / "training" / "log.json").read_text(encoding="utf-8")))
    _console().print(f"Written: {out}", highlight=False, markup=False, soft_wrap=True)


def _print_training(log: dict[str, Any]) -> None:
    """What was left out, and what the result is worth on held-out images."""
    console, found = _console(), log["validation"]
    if log["unreadable"]:
        listed = "; ".join(log["unreadable"][:5])
        console.print(_text(f"Left out, as unreadable: {len(log['unreadable'])} files ({listed})"))
    table = Table(f"on {found['n']} held-out images", "accuracy, %", box=SIMPLE_HEAD, pad_edge=False)
    names = {
        "tier_1": "tier 1 alone",
        "tier_2": f"tier 2 alone, {found['tier_2_trials']} trials",
        "hybrid": f"hybrid, {found['evaluations']:.1f} evaluations per image",
    }
    for key, name in names.items():
        table.add_row(name, f"{100 * found[key]:.1f}")
    console.print(table)
