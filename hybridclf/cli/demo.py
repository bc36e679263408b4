"""`hybridclf demo`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .shared import AsJson, Quiet, console, running, short, text

if TYPE_CHECKING:
    from ..demo.report import Report, Row
    from ..metrics import Interval


def demo(
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides split, training and noise.")] = 0,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the report and the pictures.")] = Path(
        "demo-report"
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare both tiers, alone and together, on handwritten digits; takes about two minutes."""
    with running(quiet):
        from ..demo import digits as demonstration
        from ..demo.style import require_matplotlib

        require_matplotlib()  # before the minutes are spent
        out.mkdir(parents=True, exist_ok=True)
        report = demonstration.run(seed, progress=not quiet)
        files = demonstration.write(report, out)
    if as_json:
        typer.echo(report.to_json())
        return
    screen = console()
    screen.print(_report_table(report))
    if quiet:
        return
    screen.print(f"Fit in {report.fit_seconds:.0f} s, all in {report.seconds:.0f} s. Written:")
    for file in files:
        screen.print(text(str(file)), soft_wrap=True)


def _report_table(report: "Report") -> Table:
    title = f"Handwritten digits, {report.n_train} to train and {report.n_test} to test, seed {report.seed}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method")
    for heading in _CELLS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.table:
        # the hybrid
        style = "bold" if row is report.table[-1] else None
        table.add_row(row.method, *(cell(row) for cell in _CELLS.values()), style=style)
    return table


def _percent(interval: "Interval") -> str:
    value, low, high = (100 * v for v in (interval.value, interval.low, interval.high))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


_CELLS: dict[str, Callable[["Row"], str]] = {
    "accuracy, %\n[95 % interval]": lambda row: _percent(row.accuracy),
    "calib.\nerror": lambda row: "" if row.calibration_error is None else f"{row.calibration_error:.3f}",
    "evalu-\nations": lambda row: short(row.evaluations),
    "rows": lambda row: short(row.rows),
    "images\nper s": lambda row: short(row.images_per_second),
    "no evalu-\nation, %": lambda row: f"{100 * row.no_evaluation:.1f}",
}
"""Columns of the demo's table after the name, by heading; evaluations and rows are per image."""
