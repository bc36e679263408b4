"""Text, image and group scores of methods, by kind of line: a table for terminals, and JSON for programs."""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..metrics import Interval, accuracy, accuracy_difference
from .caption_lines import CaptionLine, Unreadable

__all__ = ["CaptionReport", "CaptionRow", "matches", "rows_of"]

ALL = "all"
"""Name of the rows of all kinds together."""

_GROUP_CHANCE = {2: 1 / 6}
"""Chance of a group score by number of images: the two right matches of four are the two highest scores."""


@dataclass(frozen=True)
class CaptionRow:
    """One score of every method, on the lines of one kind.

    Attributes
    ----------
    kind : str
        What the lines say, "all" for those of all kinds together.
    score : "text", "image" or "group"
        Right captions of every image, right images of every caption, or both.
    n : int
        Lines.
    chance : float or None
        Share of lines that are right by chance; None for group scores of more than two images.
    methods : dict of str to Interval
        Share of lines that are right, with its 95 % Wilson interval, by method.
    gains : dict of str to Interval
        That share minus tier 1's, with its paired 95 % bootstrap interval, for the other methods.
    """

    kind: str
    score: str
    n: int
    chance: float | None
    methods: dict[str, Interval]
    gains: dict[str, Interval]


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
    """

    rows: list[CaptionRow]
    unreadable: list[Unreadable]
    about: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def write(self, folder: str | Path) -> list[Path]:
        """Write `captions.json` into a folder; the files.

        Raises
        ------
        OSError
            If the disk refuses.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "captions.json"
        path.write_text(f"{self.to_json()}\n", encoding="utf-8")
        return [path]

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
            shares = [_percent(row.methods[method]) for method in methods]
            differences = [_percent(row.gains[method], "+") for method in gains]
            cells = [row.score, f"{row.n:,}", chance, *shares, *differences]
            table.add_row(Text(row.kind), *cells, style="bold" if row.kind == ALL else None)
        return Group(table, *map(Text, self.notes))

    def __str__(self) -> str:
        file = io.StringIO()
        Console(file=file, width=160).print(self)
        return file.getvalue()


def rows_of(lines: Sequence[CaptionLine], scores: Sequence[Mapping[str, np.ndarray]]) -> list[CaptionRow]:
    """Rows by kind in the order of the file, then of all lines; a score has no row where no line has it.

    Parameters
    ----------
    lines : sequence of n CaptionLine
        Images and captions.
    scores : sequence of n dict of str to float array `[m, k]`
        What each method says of each line, higher is better.
    """
    kinds = list(dict.fromkeys(line.kind for line in lines))
    named = [kind for kind in kinds if kind]
    groups = {kind: [line.kind == kind for line in lines] for kind in named} | {ALL: [True] * len(lines)}
    if len(kinds) == 1 and named:  # all lines are of this kind
        del groups[ALL]
    asked = [matches(line, own) for line, own in zip(lines, scores, strict=True)]
    return [row for kind, chosen in groups.items() for row in _rows(kind, lines, asked, chosen)]


def matches(line: CaptionLine, scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, bool]]:
    """Right answers of a line by score and method; a tie is none.

    With scores (5, 3; 4, 6) of two images under two captions all three are right: 5 and 6 are above what is beside
    them (text) and above and below them (image). One image has no image score, and one caption no text score.
    """
    right: dict[str, dict[str, bool]] = {}
    places = range(line.n_right)
    for method, own in scores.items():
        found = {}
        if len(line.captions) > 1:
            found["text"] = all(own[i, i] > np.delete(own[i], i).max() for i in places)
        if len(line.images) > 1:
            found["image"] = all(own[i, i] > np.delete(own[:, i], i).max() for i in places)
        if len(found) == 2:
            found["group"] = all(found.values())
        for score, answer in found.items():
            right.setdefault(score, {})[method] = bool(answer)
    return right


def _rows(
    kind: str, lines: Sequence[CaptionLine], asked: Sequence[dict[str, dict[str, bool]]], chosen: Sequence[bool]
) -> Iterator[CaptionRow]:
    """Rows of one kind, one per score."""
    for score in ("text", "image", "group"):
        own = [i for i, wanted in enumerate(chosen) if wanted and score in asked[i]]
        if not own:
            continue
        right = {name: np.array([asked[i][score][name] for i in own]) for name in asked[own[0]][score]}
        yield CaptionRow(
            kind=kind,
            score=score,
            n=len(own),
            chance=_known(np.mean([_chance(lines[i], score) for i in own])),
            methods={name: accuracy(answers) for name, answers in right.items()},
            gains={
                name: accuracy_difference(answers, right["tier 1"])
                for name, answers in right.items()
                if name != "tier 1" and "tier 1" in right
            },
        )


def _chance(line: CaptionLine, score: str) -> float:
    """Probability that scores drawn independently from one distribution are right."""
    m, k, n = len(line.images), len(line.captions), line.n_right
    if score == "group":
        return _GROUP_CHANCE.get(n, math.nan)
    return float((1 / (k if score == "text" else m)) ** n)


def _known(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(interval: Interval, sign: str = "") -> str:
    value, low, high = (100 * v for v in (interval.value, interval.low, interval.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
