"""The report of an evaluation: a table for terminals, JSON for programs, and one page for people."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .cost import Cost
from .figures import Figure
from .gallery import Example
from .guarantee import HeldToIt
from .page import page_of
from .scores import ClassChange, Difference, Score
from .settings import Settings
from .shift import ShiftRow, shift_table
from .verdict import Verdict
from .wording import count, percent_in

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Report of an evaluation: does re-ranking pay on these labelled images, and all that the answer rests on.

    Printed with `rich`, or as text, it is a table.

    Attributes
    ----------
    verdict : Verdict
        One sentence.
    recommended : Settings
        Settings for these images, chosen on the images for calibration alone.
    methods : list of Score
        Every method on the test images; tier 1 is the first.
    costs : list of Cost
        Their times and FLOPs.
    differences : list of Difference
        Every method against tier 1, and the hybrid against every other, paired.
    classes : list of ClassChange
        What the hybrid changes by class, the greatest gain first.
    figures : list of Figure
        Pictures with their numbers.
    examples : list of Example
        Test images that the hybrid fixed, and others that it broke.
    about : dict
        What was evaluated: model, images, trials, versions, and notes, sentences that a reader should know.
    shifts : list of ShiftRow
        Accuracy and calibration on images of other distributions; empty where there are none.
    guarantee : HeldToIt or None
        Bound on what stopping early costs, and what the settings that have it cost and save on the test images; None
        where none was asked for.
    """

    verdict: Verdict
    recommended: Settings
    methods: list[Score]
    costs: list[Cost]
    differences: list[Difference]
    classes: list[ClassChange]
    figures: list[Figure]
    examples: list[Example]
    about: dict[str, Any]
    shifts: list[ShiftRow] = field(default_factory=list)
    guarantee: HeldToIt | None = None

    @property
    def rows(self) -> list[tuple[Score, Cost]]:
        """Every method's scores and costs."""
        return list(zip(self.methods, self.costs, strict=True))

    @property
    def advises(self) -> bool:
        """True if other settings than the classifier's own are worth a try: the verdict does not say to use tier 1."""
        pays = self.recommended.pays if self.verdict.pays is None else self.verdict.pays
        return pays and not self.recommended.own

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, without pictures; what is not a number (a bin without images) is None."""
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def to_json(self) -> str:
        """The report as JSON text, as `to_dict` has it."""
        values = {
            "verdict": asdict(self.verdict),
            "recommended": asdict(self.recommended),
            "methods": [asdict(score) | _but_name(cost) for score, cost in self.rows],
            "differences": [asdict(difference) for difference in self.differences],
            "classes": [asdict(change) for change in self.classes],
            "figures": [{k: v for k, v in asdict(figure).items() if k != "svg"} for figure in self.figures],
            "about": self.about,
            "shifts": [asdict(row) for row in self.shifts],
            "guarantee": asdict(self.guarantee) if self.guarantee else None,
        }
        return json.dumps(values, indent=1, default=_plain, allow_nan=False)

    def to_html(self) -> str:
        """The report as one HTML page that needs nothing else: pictures are in it, and nothing is fetched.

        Raises
        ------
        MissingDependencyError
            If jinja2 is not installed.
        """
        return page_of("page.html.j2", self)

    def write(self, folder: str | Path) -> list[Path]:
        """Write `report.json` and `report.html` into a folder; the files.

        Raises
        ------
        MissingDependencyError
            If jinja2 is not installed.
        OSError
            If the disk refuses.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {folder / "report.json": f"{self.to_json()}\n", folder / "report.html": self.to_html()}
        for path, content in files.items():
            path.write_text(content, encoding="utf-8")
        return list(files)

    def __rich__(self) -> Group:
        about = self.about
        table = Table(
            title=f"{about['test_images']:,} test images, {about['calibration_images']:,} to calibrate on",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("method")
        for heading in _CELLS:
            table.add_column(heading, justify="right", no_wrap=True)
        for score, cost in self.rows:
            style = "bold" if score.method == self.verdict.difference.method else None
            table.add_row(Text(score.method), *(cell(score, cost) for cell in _CELLS.values()), style=style)
        line = [Text(f"recommended: {self.recommended.line}")] if self.advises else []
        bound = [Text(f"{self.guarantee}\n{self.guarantee.line}")] if self.guarantee else []
        shifts = [shift_table(self.shifts)] if self.shifts else []
        notes = map(Text, about["notes"])
        return Group(Text(str(self.verdict), style="bold"), table, *line, *bound, *shifts, *notes)

    def __str__(self) -> str:
        file = io.StringIO()
        Console(file=file, width=160).print(self)
        return file.getvalue()


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{count(value)} x"


_CELLS: Mapping[str, Any] = {
    "accuracy, %\n[95 % interval]": lambda s, c: percent_in(s.accuracy),
    "mean per\nclass, %": lambda s, c: f"{100 * s.mean_per_class:.1f}",
    "top 5,\n%": lambda s, c: "" if s.top_5 is None else f"{100 * s.top_5:.1f}",
    "log\nloss": lambda s, c: f"{s.log_loss:.3f}",
    "Brier": lambda s, c: f"{s.brier:.3f}",
    "calib.\nerror": lambda s, c: f"{s.calibration_error:.3f}",
    "evalu-\nations": lambda s, c: count(s.evaluations),
    "rows": lambda s, c: count(s.rows),
    "time /\ntier 1's": lambda s, c: _ratio(c.time),
    "FLOPs /\ntier 1's": lambda s, c: _ratio(c.flops),
}
"""Columns of the table after the name; evaluations and rows are per image."""


def _but_name(cost: Cost) -> dict[str, Any]:
    """A cost's values, beside the scores of the same method."""
    return {"timed_images": cost.n_images, "time": cost.time, "flops": cost.flops, "seconds": cost.seconds}


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON can hold them; what else a label may be, as text."""
    if not isinstance(value, np.generic | np.ndarray):
        return str(value)
    return np.where(np.isnan(value), np.array(None), value).tolist() if value.dtype.kind == "f" else value.tolist()


def pairs(names: Sequence[str], hybrid: str) -> list[tuple[str, str]]:
    """Methods to compare: all with tier 1, the first; the hybrid with all others."""
    others = [name for name in names[1:] if name != hybrid]
    return [(hybrid, names[0]), *((name, names[0]) for name in others), *((hybrid, name) for name in others)]
