"""Report on matching images and captions: a table for terminals, JSON for programs, and one page for people."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .caption_gallery import CaptionExample
from .caption_lines import Unreadable
from .caption_scores import ALL, CaptionRow
from .caption_verdict import CaptionVerdict
from .page import page_of
from .wording import percent_in

__all__ = ["CaptionReport"]


@dataclass(frozen=True)
class CaptionReport:
    """Scores of matching images and captions; printed with `rich`, or as text, it is a table.

    Attributes
    ----------
    rows : list of CaptionRow
        Scores by kind.
    unreadable : list of Unreadable
        Lines that were left out.
    about : dict
        What was asked: file, model, lines, images, trials, evaluations and fusion.
    verdict : CaptionVerdict
        One sentence, and the lines that re-ranking fixed and broke.
    examples : list of CaptionExample
        Some of these lines.
    """

    rows: list[CaptionRow]
    unreadable: list[Unreadable]
    about: dict[str, Any]
    verdict: CaptionVerdict
    examples: list[CaptionExample]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, without pictures."""
        return {name: value for name, value in asdict(self).items() if name != "examples"}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_html(self) -> str:
        """The report as one HTML page that needs nothing else: pictures are in it, and nothing is fetched.

        Raises
        ------
        MissingDependencyError
            If jinja2 is not installed.
        """
        return page_of("captions.html.j2", self)

    def write(self, folder: str | Path) -> list[Path]:
        """Write `captions.json` and `captions.html` into a folder; the files.

        Raises
        ------
        MissingDependencyError
            If jinja2 is not installed.
        OSError
            If the disk refuses.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {folder / "captions.json": f"{self.to_json()}\n", folder / "captions.html": self.to_html()}
        for path, content in files.items():
            path.write_text(content, encoding="utf-8")
        return list(files)

    @property
    def notes(self) -> list[str]:
        """Sentences on the fusion, and on lines that were not asked about."""
        about, notes = self.about, []
        if about["fusion"]:
            notes.append(f"The fusion of both tiers is {about['fusion']}.")
        else:
            notes.append("Tiers are not fused: the classifier has no fitted fusion; give lines to calibrate on.")
        if (n := about["lines"] + len(self.unreadable)) < about["lines_in_all"]:
            notes.append(f"A sample of {n:,} of {about['lines_in_all']:,} lines, every kind in proportion.")
        if self.unreadable:
            first = "; ".join(map(str, self.unreadable[:3]))
            notes.append(f"{len(self.unreadable):,} lines were left out: {first}")
        return notes

    def __rich__(self) -> Group:
        about = self.about
        table = Table(
            title=f"{about['lines']:,} lines, {about['images']:,} images, {about['trials']} trials: right, % "
            "[95 % interval]",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        methods, gains = list(self.rows[0].methods), list(self.rows[0].gains)
        table.add_column("kind")
        table.add_column("score")
        for heading in ("n", "chance", *methods, *(f"{method}\n- tier 1" for method in gains)):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            chance = "" if row.chance is None else f"{100 * row.chance:.0f}"
            shares = [percent_in(row.methods[method]) for method in methods]
            differences = [percent_in(row.gains[method], "+") for method in gains]
            cells = [row.score, f"{row.n:,}", chance, *shares, *differences]
            table.add_row(Text(row.kind), *cells, style="bold" if row.kind == ALL else None)
        return Group(Text(str(self.verdict), style="bold"), table, *map(Text, self.notes))

    def __str__(self) -> str:
        file = io.StringIO()
        Console(file=file, width=160).print(self)
        return file.getvalue()
