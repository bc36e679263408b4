"""Matching of images and captions by tier 1, by tier 2 and by both: text, image and group scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from .. import __version__
from ..captions import without_template
from ..data.image_files import read_pictures
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..reranking.fusion import Fusion
from ..utils.progress import progress_bar
from .caption_lines import CaptionLine, Unreadable, read_lines
from .caption_report import CaptionReport, rows_of
from .sample import stratified

__all__ = ["evaluate_captions"]

TRIALS = 32
"""Trials of each image where nobody says how many."""

CHUNK = 16
"""Lines that are asked about at a time."""

FEWEST = 20
"""Comparisons that a fusion is fitted to, at least."""


@dataclass(frozen=True)
class LineScores:
    """Scores of a line's m images under its k captions, higher is better.

    Attributes
    ----------
    line : CaptionLine
        Images and captions.
    gain : float array `[T, m, k]`
        Tier 2's error of no prompt minus that of the caption, in each trial.
    tier_1 : float array `[m, k]` or None
        Tier 1's unnormalised log-probabilities; None if it is no model of text.
    """

    line: CaptionLine
    gain: np.ndarray
    tier_1: np.ndarray | None


def evaluate_captions(
    clf: HybridClassifier,
    source: str | Path,
    *,
    calibrate: str | Path | None = None,
    images: int | None = None,
    trials: int = TRIALS,
    seed: int = 0,
    progress: bool = False,
) -> CaptionReport:
    """Measure how well both tiers match images and captions.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted classifier, both tiers of which are models of text; of a tier 1 that is none nothing is reported.
    source : path
        Images and captions, as for `caption_lines.read_lines`.
    calibrate : path, optional
        Others, to fit the fusion of both tiers on. Default: the fusion that the classifier has.
    images : int, optional
        Images to ask about, at most: a sample of the lines, every kind in its proportion. Default: all.
    trials : int
        Trials of each image, the same for all.
    seed : int
        Decides the sample; the noise is the classifier's own.
    progress : bool
        Show a progress bar.

    Returns
    -------
    CaptionReport

    Raises
    ------
    InvalidTypeError
        If tier 2 is no model of text.
    InvalidInputError
        If a file cannot be read, or has no line that can be used, or too few to fit a fusion.
    """
    without_template(clf.denoiser_)  # refuses what is no model of text, before images are read
    asked, unreadable, n_lines = _asked(clf, source, images, trials, seed, progress)
    fusion = clf.fusion_ if clf.fusion_.calibrated else None
    n_fitted = 0
    if calibrate is not None:
        others = _asked(clf, calibrate, images, trials, seed, progress)[0]
        fusion, n_fitted = _fitted(others, calibrate), len(others)
    methods = [_by_method(scores, fusion) for scores in asked]
    about = {
        "source": str(source),
        "model": f"{type(clf.proposer_).__name__} and {type(clf.denoiser_).__name__}",
        "lines": len(asked),
        "lines_in_all": n_lines,
        "images": sum(len(scores.line.images) for scores in asked),
        "trials": trials,
        "evaluations": trials * sum(len(s.line.images) * (len(s.line.captions) + 1) for s in asked),
        "fusion": f"fitted to {n_fitted} lines of {calibrate}" if n_fitted else "the classifier's" if fusion else None,
        "hybridclf": __version__,
    }
    return CaptionReport(rows_of([scores.line for scores in asked], methods), unreadable, about)


def _asked(
    clf: HybridClassifier, source: str | Path, n_images: int | None, trials: int, seed: int, progress: bool
) -> tuple[list[LineScores], list[Unreadable], int]:
    """Both tiers' scores of a file's lines, or of a sample of them; lines that cannot be used; lines in all."""
    lines, unreadable = read_lines(source)
    n_lines = len(lines) + len(unreadable)
    lines = _sample(lines, n_images, seed)
    scores: list[LineScores] = []
    with progress_bar(total=len(lines), desc="captions", unit="line", show=progress) as bar:
        for start in range(0, len(lines), CHUNK):
            found, failed = _scored(clf, lines[start : start + CHUNK], trials)
            scores += found
            unreadable += failed
            bar.update(len(found) + len(failed))
    if not scores:
        first = "; ".join(map(str, unreadable[:3]))
        raise InvalidInputError(f"{source} has no line that can be used: {first}")
    return scores, sorted(unreadable, key=lambda one: one.line), n_lines


def _sample(lines: list[CaptionLine], n_images: int | None, seed: int) -> list[CaptionLine]:
    """Lines with about so many images, every kind in its proportion."""
    if n_images is None:
        return lines
    kinds = np.unique([line.kind for line in lines], return_inverse=True)[1]
    per_line = sum(len(line.images) for line in lines) / len(lines)
    return [lines[i] for i in stratified(kinds, max(1, int(n_images / per_line)), seed)]


def _scored(
    clf: HybridClassifier, lines: Sequence[CaptionLine], trials: int
) -> tuple[list[LineScores], list[Unreadable]]:
    """Scores of some lines at once, and those that cannot be used."""
    try:
        scores = _together(clf, lines, trials)
    except InvalidInputError as error:
        if len(lines) == 1:
            return [], [Unreadable(lines[0].line, str(error))]
        # one line is unusable, or captions of two lines read the same to the model: line by line they do no harm
        parts = [_scored(clf, [line], trials) for line in lines]
        return [one for part in parts for one in part[0]], [one for part in parts for one in part[1]]
    finite = [bool(np.isfinite(one.gain).all()) for one in scores]
    failed = [Unreadable(line.line, "tier 2's errors are not finite") for line in compress(lines, np.invert(finite))]
    return list(compress(scores, finite)), failed


def _together(clf: HybridClassifier, lines: Sequence[CaptionLine], trials: int) -> list[LineScores]:
    """Scores of some lines.

    Raises
    ------
    InvalidInputError
        If an image or a caption of them cannot be used.
    """
    opened = read_pictures([path for line in lines for path in line.images], None)
    captions = [line.captions for line in lines for _ in line.images]
    found = iter(clf.score_captions(opened, captions, trials=trials))
    scores = []
    for line in lines:
        own = [next(found) for _ in line.images]
        gain = np.stack([one.unconditional[:, None] - one.errors for one in own], axis=1)  # [T, m, k]
        first = [one.tier_1 for one in own if one.tier_1 is not None]
        scores.append(LineScores(line, gain, np.stack(first) if first else None))
    return scores


def _by_method(scores: LineScores, fusion: Fusion | None) -> dict[str, np.ndarray]:
    """Scores `[m, k]` by method, higher is better."""
    n_trials, sums = len(scores.gain), scores.gain.sum(axis=0, dtype=float)
    methods = {"tier 2": sums / n_trials}
    if scores.tier_1 is None:
        return methods
    methods = {"tier 1": scores.tier_1} | methods
    if fusion is None:
        return methods
    return methods | {"both": fusion.scores(scores.tier_1, -sums, np.full(len(sums), n_trials))}


def _fitted(asked: Sequence[LineScores], source: str | Path) -> Fusion:
    """A fusion fitted to every comparison of a right match with a wrong one, in lines that are not reported on."""
    tier_1, errors = [], []
    for scores in asked:
        for right, wrong in _comparisons(scores.line):
            if scores.tier_1 is not None:
                tier_1.append([scores.tier_1[right], scores.tier_1[wrong]])
                errors.append(np.stack([-scores.gain[:, *right], -scores.gain[:, *wrong]], axis=1))
    if len(tier_1) < FEWEST:
        raise InvalidInputError(
            f"{source} makes {len(tier_1)} comparisons of a right caption with a wrong one by two models of text, and "
            f"a fusion needs at least {FEWEST}; give more lines, or leave out what to calibrate on"
        )
    first = np.zeros(len(tier_1), dtype=int)
    return Fusion.fit(log_softmax(np.array(tier_1), axis=1), np.stack(errors), first)


def _comparisons(line: CaptionLine) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Places (image, caption) of each right match, with those of the wrong matches in its row and column."""
    m, k = len(line.images), len(line.captions)
    pairs = []
    for i in range(line.n_right):
        pairs += [((i, i), (i, j)) for j in range(k) if j != i]
        pairs += [((i, i), (j, i)) for j in range(m) if j != i]
    return pairs
