"""Matching of images and captions by tier 1, by tier 2 and by both: text, image and group scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from .. import __version__
from ..captions import without_template
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..reranking.fusion import Fusion
from .caption_gallery import caption_examples
from .caption_lines import CaptionLine, Unreadable, read_lines
from .caption_recording import LineScores, record_captions
from .caption_report import CaptionReport
from .caption_scores import rows_of
from .caption_verdict import caption_verdict
from .sample import stratified

__all__ = ["TRIALS", "evaluate_captions", "fit_caption_fusion"]

TRIALS = 32
"""Trials of each image where nobody says how many."""

FEWEST = 20
"""Comparisons that a fusion is fitted to, at least."""


def evaluate_captions(
    clf: HybridClassifier,
    source: str | Path,
    *,
    calibrate: str | Path | Fusion | None = None,
    images: int | None = None,
    trials: int = TRIALS,
    folder: str | Path | None = None,
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
    calibrate : path or Fusion, optional
        Others, to fit the fusion of both tiers on, or what `fit_caption_fusion` made of them. Default: the fusion that
        the classifier has.
    images : int, optional
        Images to ask about, at most: a sample of the lines, every kind in its proportion. Default: all.
    trials : int
        Trials of each image, the same for all.
    folder : path, optional
        Where the recording is kept, chunk by chunk: the same call goes on where it was interrupted, and a second one
        asks neither tier again. That of the lines to calibrate on is beside it. Default: nowhere.
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
        If a file cannot be read, or has no line that can be used, or too few to fit a fusion, or if a folder holds
        another recording or cannot be written.
    """
    without_template(clf.denoiser_)  # refuses what is no model of text, before images are read
    own = None if folder is None else Path(folder)
    asked, unreadable, n_lines = _asked(clf, source, images, trials, own, seed, progress)
    if isinstance(calibrate, str | Path):
        others = None if folder is None else Path(f"{folder}-calibrate")
        fusion: Fusion | None = fit_caption_fusion(
            clf, calibrate, images=images, trials=trials, folder=others, seed=seed, progress=progress
        )
        said: str | None = f"fitted to lines of {calibrate}"
    elif calibrate is not None:
        fusion, said = calibrate, "given"
    else:
        fusion, said = (clf.fusion_, "the classifier's") if clf.fusion_.calibrated else (None, None)
    methods = [_by_method(scores, fusion) for scores in asked]
    about = {
        "source": str(source),
        "model": f"{type(clf.proposer_).__name__} and {type(clf.denoiser_).__name__}",
        "lines": len(asked),
        "lines_in_all": n_lines,
        "images": sum(len(scores.line.images) for scores in asked),
        "trials": trials,
        "evaluations": trials * sum(len(s.line.images) * (len(s.line.captions) + 1) for s in asked),
        "fusion": said,
        "hybridclf": __version__,
    }
    lines = [scores.line for scores in asked]
    rows = rows_of(lines, methods)
    verdict = caption_verdict(rows, lines, methods)
    return CaptionReport(rows, unreadable, about, verdict, caption_examples(verdict, lines, methods, seed))


def fit_caption_fusion(
    clf: HybridClassifier,
    source: str | Path,
    *,
    images: int | None = None,
    trials: int = TRIALS,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Fusion:
    """Fit a fusion to every comparison of a right match with a wrong one, in lines that are not reported on.

    Parameters and errors are those of `evaluate_captions`.
    """
    asked = _asked(clf, source, images, trials, None if folder is None else Path(folder), seed, progress)[0]
    return _fitted(asked, source)


def _asked(
    clf: HybridClassifier,
    source: str | Path,
    n_images: int | None,
    trials: int,
    folder: Path | None,
    seed: int,
    progress: bool,
) -> tuple[list[LineScores], list[Unreadable], int]:
    """Both tiers' scores of a file's lines, or of a sample of them; lines that cannot be used; lines in all."""
    lines, unreadable = read_lines(source)
    n_lines = len(lines) + len(unreadable)
    scores, failed = record_captions(clf, _sample(lines, n_images, seed), trials, folder=folder, progress=progress)
    unreadable = sorted([*unreadable, *failed], key=lambda one: one.line)
    if not scores:
        first = "; ".join(map(str, unreadable[:3]))
        raise InvalidInputError(f"{source} has no line that can be used: {first}")
    return scores, unreadable, n_lines


def _sample(lines: list[CaptionLine], n_images: int | None, seed: int) -> list[CaptionLine]:
    """Lines with about so many images, every kind in its proportion."""
    if n_images is None:
        return lines
    kinds = np.unique([line.kind for line in lines], return_inverse=True)[1]
    per_line = sum(len(line.images) for line in lines) / len(lines)
    return [lines[i] for i in stratified(kinds, max(1, int(n_images / per_line)), seed)]


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
    """A fusion fitted to the comparisons in some lines."""
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
