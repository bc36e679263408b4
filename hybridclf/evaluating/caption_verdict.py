"""Verdict on matching images and captions: one sentence, from the lines that are reported on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import Interval
from .caption_lines import CaptionLine
from .caption_scores import ALL, CaptionRow, matches
from .verdict import POINT

__all__ = ["CaptionVerdict", "caption_verdict"]


@dataclass(frozen=True)
class CaptionVerdict:
    """Verdict on re-ranking captions, by one score of all lines that have it.

    Attributes
    ----------
    sentence : str
        In words.
    pays : bool or None
        True if re-ranking makes more lines right than it breaks; None: too few lines to tell, or no tier 1.
    kind, score : str
        Row that it rests on: the text score where there is one, else the image score.
    method : str
        Both tiers where they are fused, else tier 2.
    baseline : str or None
        Tier 1; None if it is no model of text.
    fixed, broken : list of int
        Numbers of the lines that the method alone, and that the baseline alone, gets right.
    """

    sentence: str
    pays: bool | None
    kind: str
    score: str
    method: str
    baseline: str | None
    fixed: list[int]
    broken: list[int]

    def __str__(self) -> str:
        return self.sentence


def caption_verdict(
    rows: Sequence[CaptionRow], lines: Sequence[CaptionLine], scores: Sequence[Mapping[str, np.ndarray]]
) -> CaptionVerdict:
    """The verdict on the lines of a report; arguments as for `rows_of`, and the rows that it makes of them."""
    kind = ALL if any(row.kind == ALL for row in rows) else rows[0].kind
    row = next(row for score in ("text", "image") for row in rows if (row.kind, row.score) == (kind, score))
    method = "both" if "both" in row.methods else "tier 2"
    baseline = "tier 1" if "tier 1" in row.methods else None
    fixed: list[int] = []
    broken: list[int] = []
    for line, own in zip(lines, scores, strict=True):
        right = matches(line, own).get(row.score)
        if right and baseline and right[method] != right[baseline]:
            (fixed if right[method] else broken).append(line.line)
    sentence, pays = _said(row, method) if baseline else (_of_tier_2(row), None)
    return CaptionVerdict(sentence, pays, kind, row.score, method, baseline, fixed, broken)


def _said(row: CaptionRow, method: str) -> tuple[str, bool | None]:
    """Sentence on a method against tier 1, and whether it pays."""
    gain, tier_1 = row.gains[method], 100 * row.methods["tier 1"].value
    change = gain.points()
    what = "Re-ranking" if method == "both" else "Tier 2 alone"
    of_score = f"to tier 1's {row.score} score of {tier_1:.1f} %"
    if gain.low > 0:
        return f"{what} adds {change[1:]} {of_score}.", True
    if gain.high < 0:
        return f"{what} does harm here, {change} {of_score}: use tier 1.", False
    if gain.high <= POINT:
        return f"{what} adds nothing {of_score}: use tier 1. It makes {change}.", False
    return f"{row.n} lines cannot tell whether {what[0].lower()}{what[1:]} adds anything {of_score}: {change}.", None


def _of_tier_2(row: CaptionRow) -> str:
    """Sentence on tier 2, where there is nothing to compare it with but chance."""
    share: Interval = row.methods["tier 2"]
    value, low, high = (100 * v for v in (share.value, share.low, share.high))
    chance = "" if row.chance is None else f"; chance gives {100 * row.chance:.1f}"
    return f"Tier 2 has a {row.score} score of {value:.1f} % ({low:.1f} to {high:.1f}){chance}."
