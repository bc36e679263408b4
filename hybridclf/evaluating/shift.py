"""Both tiers on images of another distribution, with settings and fusion chosen on images of the first one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from scipy.special import softmax

from ..data.arrays import Items
from ..data.datasets import numbered
from ..errors import InvalidInputError
from ..fitting.splitting import picture_groups
from ..fitting.validation import class_numbers
from ..metrics import Interval, accuracy, group_numbers
from ..ports import Label
from ..proposer import aligned_log_proba
from .methods import TIER_1, Answers, replay
from .recording import record
from .robustness import BaselineResult, effective_robustness, fit_line, half_inside
from .scores import Score, score
from .shifted import Shifted
from .storage import digest_of
from .study import Study
from .wording import percent_in

__all__ = [
    "AS_GIVEN",
    "GroupScore",
    "ShiftRow",
    "baseline_results",
    "shape_bias",
    "shift_rows",
    "shift_table",
    "worst_group",
]

AS_GIVEN = "as given"
"""Name of a study's own test images."""

FEWEST = 10
"""Images that a group has at least, for its accuracy to be looked at."""


@dataclass(frozen=True)
class GroupScore:
    """The group that a method is worst in.

    Attributes
    ----------
    group : str
        Its name.
    n : int
        Its images.
    accuracy : Interval
        Share of them that are answered right, with a Wilson interval that allows for the choice of the group.
    """

    group: str
    n: int
    accuracy: Interval


@dataclass(frozen=True)
class ShiftRow:
    """One method on the images of one distribution.

    Attributes
    ----------
    source : str
        The images.
    n : int
        Their number.
    method : str
        Name of the method.
    accuracy : Interval
        Share of right answers, with its 95 % Wilson interval.
    calibration_error : float
        Expected calibration error, in [0, 1].
    worst_group : GroupScore or None
        The group with the lowest accuracy, of those with at least `FEWEST` images; None without groups.
    shape_bias : Interval or None
        Share of shapes among answers that are an image's shape or its texture, with its 95 % Wilson interval (Geirhos
        et al., arXiv 1811.12231); None without textures, or without such an answer.
    beyond_line : Interval or None
        Effective robustness: accuracy beyond that of baselines with the same clean accuracy, see `robustness`; None
        without baselines.
    baseline : bool
        True for a baseline.
    """

    source: str
    n: int
    method: str
    accuracy: Interval
    calibration_error: float
    worst_group: GroupScore | None = None
    shape_bias: Interval | None = None
    beyond_line: Interval | None = None
    baseline: bool = False


def shift_rows(
    study: Study,
    shifted: Sequence[Shifted],
    folder: Path | None = None,
    proposers: Mapping[str, Any] | None = None,
    known: Sequence[BaselineResult] = (),
) -> list[ShiftRow]:
    """Tier 1, tier 2 alone and the hybrid of a study on its own test images, and on images of other distributions.

    Parameters
    ----------
    study : Study
        Settings and fusions, chosen on its images to calibrate on.
    shifted : sequence of Shifted
        Other images of its classes.
    folder : path, optional
        Where their recordings are kept, each in a folder that is named by its images. Default: nowhere.
    proposers : dict of str to proposer, optional
        Baselines: other classifiers of the same labels, which answer the same images.
    known : sequence of BaselineResult
        Accuracies of further baselines, which the line is fitted to as well.

    Raises
    ------
    InvalidInputError
        For labels that the classifier or a baseline does not know, fewer than two baselines, and as `record` does.
    """
    names, others = [TIER_1, study.methods[1].name, study.hybrid], proposers or {}
    clean = [_row(AS_GIVEN, study.scores[name]) for name in names]
    clean += [_baseline(study, AS_GIVEN, name, own, _Asked.test(study)) for name, own in others.items()]
    rows = list(clean)
    for own in shifted:
        asked = _Asked.of(study, own)
        found = _on(study, names, own, asked, folder)
        found += [_baseline(study, own.name, name, other, asked) for name, other in others.items()]
        rows += _beyond_line(clean, found, known) if others or known else found
    return rows


class _Asked(NamedTuple):
    """Images as a classifier reads them, their class numbers `[n]`, and their group numbers `[n]`, copies joined."""

    items: Items
    y: np.ndarray
    units: np.ndarray

    @classmethod
    def test(cls, study: Study) -> "_Asked":
        """The study's own test images."""
        return cls(study.test_items, study.test.y, study.test.units)

    @classmethod
    def of(cls, study: Study, shifted: Shifted) -> "_Asked":
        """Images of another distribution."""
        items, y = study.clf._read(shifted.images), class_numbers(np.asarray(shifted.y), study.clf.classes_)
        return cls(items, y, picture_groups(items.images, group_numbers(shifted.units, len(y))))


def _baseline(study: Study, source: str, name: str, proposer: Any, asked: _Asked) -> ShiftRow:
    """A baseline's answers to some images."""
    posterior = softmax(aligned_log_proba(proposer, asked.items, study.clf.classes_), axis=1)
    nothing = np.zeros(len(asked.y), dtype=int)
    answers = Answers(posterior, nothing, nothing, [""] * len(asked.y))
    return replace(_row(source, score(name, answers, asked.y, asked.units)), baseline=True)


def _beyond_line(
    clean: Sequence[ShiftRow], rows: Sequence[ShiftRow], known: Sequence[BaselineResult]
) -> list[ShiftRow]:
    """The rows of one distribution, those of our own methods with their distance from the baselines' line."""
    before = {row.method: row for row in clean}
    try:
        line = fit_line([*known, *baseline_results(before, rows)])
    except InvalidInputError:  # all baselines have one clean accuracy, which could not be known before
        return list(rows)

    def distance(row: ShiftRow) -> Interval:
        clean = before[row.method]
        return effective_robustness(line, clean.accuracy, row.accuracy, clean.n)

    return [row if row.baseline else replace(row, beyond_line=distance(row)) for row in rows]


def baseline_results(clean: Mapping[str, ShiftRow], rows: Sequence[ShiftRow]) -> list[BaselineResult]:
    """Accuracies of the baselines among the rows of one distribution; `clean` has their rows as given, by name."""
    pairs = [(row.method, _of(clean[row.method]), _of(row)) for row in rows if row.baseline]
    return [BaselineResult(name, *(float(half_inside(np.array(p), n)) for p, n in both)) for name, *both in pairs]


def _of(row: ShiftRow) -> tuple[float, int]:
    return row.accuracy.value, row.n


def _on(study: Study, names: Sequence[str], shifted: Shifted, asked: _Asked, folder: Path | None) -> list[ShiftRow]:
    """The methods of these names on images of one distribution."""
    (items, y, units), known = asked, study.recording
    recording = record(
        study.clf,
        items,
        y,
        trials=known.n_trials,
        top_k=known.candidates.shape[1],
        span=known.pixel_range,
        folder=folder and folder / digest_of([*items.images, y]),  # whatever else is asked about, and in any order
        progress=study.progress,
    )
    rows = []
    for method in (method for method in study.methods if method.name in names):
        answers = replay(method, recording)
        row = _row(shifted.name, score(method.name, answers, y, units))
        labels = study.clf.classes_[answers.label].tolist()
        if shifted.groups is not None:
            row = replace(row, worst_group=worst_group(answers.label == y, shifted.groups, units))
        if shifted.textures is not None:
            bias = shape_bias(labels, np.asarray(shifted.y).tolist(), shifted.textures, units)
            row = replace(row, shape_bias=bias)
        rows.append(row)
    return rows


def _row(source: str, scored: Score) -> ShiftRow:
    n = int(scored.reliability.count.sum())
    return ShiftRow(source, n, scored.method, scored.accuracy, scored.calibration_error)


def worst_group(right: np.ndarray, groups: Sequence[Any], units: np.ndarray | None = None) -> GroupScore | None:
    """The group with the lowest accuracy, of those with at least `FEWEST` images; None if there is no such group.

    Its interval is as much wider as the lowest of so many groups takes (Bonferroni's method).

    Parameters
    ----------
    right : bool array `[n]`
        Right answers.
    groups : sequence of n values
        Groups; None for none.
    units : int array `[n]`, optional
        Numbers of images that belong together, for which the interval allows. Default: each is alone.
    """
    groups = list(groups)  # a Series goes by its index
    number, units = numbered(groups), group_numbers(units, len(right))
    each = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    members = [own for own in each if len(own) >= FEWEST]  # None is a group of a single image
    level = 1 - 0.05 / max(1, len(members))
    scores = [GroupScore(str(groups[own[0]]), len(own), accuracy(right[own], level, units[own])) for own in members]
    return min(scores, key=lambda one: one.accuracy.value, default=None)


def shape_bias(
    labels: Sequence[Label], shapes: Sequence[Label], textures: Sequence[Label], units: np.ndarray | None = None
) -> Interval | None:
    """Share of shapes among the answers that are an image's shape or its texture, where the two differ.

    Answers cat, dog, cow, cat to cats with the textures dog, dog, dog and cat: one shape, one texture, so 1/2. The
    interval allows for images that belong together, by their numbers `[n]`.
    """
    decided = [
        (label == shape, unit)
        for label, shape, texture, unit in zip(labels, shapes, textures, group_numbers(units, len(labels)), strict=True)
        if shape != texture and label in (shape, texture)
    ]
    if not decided:
        return None
    of_shape, together = map(np.array, zip(*decided, strict=True))
    return accuracy(of_shape, groups=together)


def shift_table(rows: Sequence[ShiftRow]) -> Table:
    """The rows as a table for terminals."""
    table = Table(
        title="Under shift, settings and fusion as chosen above",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("images")
    table.add_column("method")
    columns = {"n": lambda r: f"{r.n:,}", "accuracy, %": lambda r: percent_in(r.accuracy)}
    columns |= {"calib.\nerror": lambda r: f"{r.calibration_error:.3f}"}
    if any(row.worst_group for row in rows):
        columns["worst group, %"] = lambda r: (
            f"{r.worst_group.group}: {percent_in(r.worst_group.accuracy)}" if r.worst_group else ""
        )
    if any(row.shape_bias for row in rows):
        columns["shape bias, %"] = lambda r: percent_in(r.shape_bias) if r.shape_bias else ""
    if any(row.beyond_line for row in rows):
        columns["beyond baselines'\nline, points"] = lambda r: percent_in(r.beyond_line) if r.beyond_line else ""
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.source), row.method, *(Text(cell(row)) for cell in columns.values()))
    return table
