"""Text, image and group scores of methods, by kind of line."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.datasets import numbered
from ..data.holding_out import join_groups
from ..metrics import Interval, accuracy, accuracy_difference
from .caption_lines import CaptionLine

__all__ = ["ALL", "CaptionRow", "matches", "rows_of"]

ALL = "all"
"""Name of the rows of all kinds together."""

_GROUP_CHANCE = {2: 1 / 6}
"""Chance of a group score by number of images: the two right matches of four are the two highest scores."""


@dataclass(frozen=True)
class CaptionRow:
    """One score of every method, on the lines of one kind; intervals allow for lines about one image.

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
        That share minus tier 1's, with its paired 95 % interval, for the other methods.
    """

    kind: str
    score: str
    n: int
    chance: float | None
    methods: dict[str, Interval]
    gains: dict[str, Interval]


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
    asked, units = [matches(line, own) for line, own in zip(lines, scores, strict=True)], _units(lines)
    return [row for kind, chosen in groups.items() for row in _rows(kind, lines, asked, units, chosen)]


def _units(lines: Sequence[CaptionLine]) -> np.ndarray:
    """Numbers of the groups of lines about one image, int `[n]`: wrong images, which many lines may have, join none."""
    pictured = [(i, image) for i, line in enumerate(lines) for image in line.images[: line.n_right]]
    number, images = zip(*pictured, strict=True)
    joined = join_groups(np.array(number), numbered(images))
    return joined[np.unique(number, return_index=True)[1]]


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
    kind: str,
    lines: Sequence[CaptionLine],
    asked: Sequence[dict[str, dict[str, bool]]],
    units: np.ndarray,
    chosen: Sequence[bool],
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
            methods={name: accuracy(answers, groups=units[own]) for name, answers in right.items()},
            gains={
                name: accuracy_difference(answers, right["tier 1"], groups=units[own])
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
