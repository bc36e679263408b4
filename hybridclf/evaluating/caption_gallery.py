"""Lines that re-ranking fixed or broke, with what both chose, as a page shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.image_files import read_pictures
from ..errors import InvalidInputError
from .caption_lines import CaptionLine
from .caption_verdict import CaptionVerdict
from .gallery import SHOWN, data_uri

__all__ = ["CaptionExample", "caption_examples"]


@dataclass(frozen=True)
class Choice:
    """A caption beside an image: right or wrong, and chosen or not by the baseline and by the method."""

    text: str
    right: bool
    before: bool
    after: bool


@dataclass(frozen=True)
class Part:
    """One image of a line, a PNG as a data URI, with the captions that it was asked about."""

    picture: str
    captions: list[Choice]


@dataclass(frozen=True)
class CaptionExample:
    """One line that re-ranking fixed, or else broke.

    Attributes
    ----------
    fixed : bool
        Else it was broken.
    line : int
        Its number.
    kind : str
        Row of the table.
    parts : list of Part
        Its images.
    """

    fixed: bool
    line: int
    kind: str
    parts: list[Part]


def caption_examples(
    verdict: CaptionVerdict, lines: Sequence[CaptionLine], scores: Sequence[Mapping[str, np.ndarray]], seed: int
) -> list[CaptionExample]:
    """Some of the lines that a verdict counts as fixed, then some of the broken ones, by chance.

    Parameters
    ----------
    verdict : CaptionVerdict
        Methods, score and lines.
    lines, scores : sequences of n
        As for `rows_of`.
    seed : int
        Decides which lines are shown.
    """
    by_number = {line.line: (line, own) for line, own in zip(lines, scores, strict=True)}
    examples = []
    for fixed, numbers in ((True, verdict.fixed), (False, verdict.broken)):
        shown = np.sort(np.random.default_rng(seed).permutation(numbers)[:SHOWN])
        examples += [_example(*by_number[number], verdict, fixed) for number in shown.tolist()]
    return examples


def _example(
    line: CaptionLine, scores: Mapping[str, np.ndarray], verdict: CaptionVerdict, fixed: bool
) -> CaptionExample:
    """A line as the page shows it; choices `[m, k]` are the best caption of each image, or the best image of each."""
    m, k = len(line.images), len(line.captions)
    axis = 1 if verdict.score == "text" else 0
    before, after = (_chosen(scores[name], axis) for name in (verdict.baseline or verdict.method, verdict.method))
    choices = zip(np.eye(m, k, dtype=bool).tolist(), before.tolist(), after.tolist(), strict=True)
    parts = [
        Part(_picture(path), [Choice(*one) for one in zip(line.captions, *own, strict=True)])
        for path, own in zip(line.images, choices, strict=True)
    ]
    return CaptionExample(fixed, line.line, line.kind, parts)


def _chosen(scores: np.ndarray, axis: int) -> np.ndarray:
    """True at the highest scores `[m, k]` along an axis; several in a tie."""
    return np.asarray(scores == scores.max(axis=axis, keepdims=True))


def _picture(path: object) -> str:
    """An image file as a data URI; "" if it is gone by now."""
    try:
        return data_uri(read_pictures([path], None)[0])
    except InvalidInputError:
        return ""
