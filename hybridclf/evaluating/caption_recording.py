"""Recording of both tiers on lines of images and captions, in one pass that can be interrupted."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from ..data.image_files import read_pictures
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..utils.progress import progress_bar
from .caption_lines import CaptionLine, Unreadable
from .storage import Arrays, RecordingFolder

__all__ = ["LineScores", "record_captions"]

CHUNK = 16
"""Lines that are asked about at a time: what an interruption costs at most."""

READ_AT_ONCE = 2**20
"""Bytes of an image file that are hashed at a time."""


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


@dataclass
class _Chunk:
    """Scores of a few lines, and those that cannot be used."""

    scores: list[LineScores] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def __add__(self, other: "_Chunk") -> "_Chunk":
        return _Chunk(self.scores + other.scores, self.unreadable + other.unreadable)

    @property
    def arrays(self) -> Arrays:
        """The chunk as it is kept, by the numbers of the lines; reasons are UTF-8."""
        arrays: Arrays = {}
        for one in self.scores:
            arrays[f"gain.{one.line.line}"] = one.gain
            if one.tier_1 is not None:
                arrays[f"tier_1.{one.line.line}"] = one.tier_1
        reasons = {f"unreadable.{one.line}": one.reason.encode() for one in self.unreadable}
        return arrays | {name: np.frombuffer(reason, np.uint8) for name, reason in reasons.items()}

    @classmethod
    def of(cls, arrays: Arrays | None, lines: Sequence[CaptionLine]) -> "_Chunk | None":
        """The chunk of these lines that was kept; None if it was not, or is not whole."""
        if arrays is None:
            return None
        found = cls()
        for line in lines:
            gain, reason = (arrays.get(f"{kind}.{line.line}") for kind in ("gain", "unreadable"))
            if gain is not None:
                found.scores.append(LineScores(line, gain, arrays.get(f"tier_1.{line.line}")))
            elif reason is not None:
                found.unreadable.append(Unreadable(line.line, reason.tobytes().decode(errors="replace")))
            else:
                return None
        return found


def record_captions(
    clf: HybridClassifier,
    lines: Sequence[CaptionLine],
    trials: int,
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[list[LineScores], list[Unreadable]]:
    """Ask both tiers about all lines, chunk by chunk; chunks that the folder has are not asked again.

    Parameters
    ----------
    clf : HybridClassifier
        Both tiers; its seed decides the noise.
    lines : sequence of CaptionLine
        Images and captions.
    trials : int
        Trials of each image.
    folder : path, optional
        A new folder, or one in which the same recording was begun. Default: nothing is kept.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of LineScores
        The lines that can be used.
    list of Unreadable
        The others.

    Raises
    ------
    InvalidInputError
        If the folder holds another recording (the error says what differs), or cannot be written.
    """
    parts = [lines[start : start + CHUNK] for start in range(0, len(lines), CHUNK)]
    store = None if folder is None else RecordingFolder(folder, _manifest(clf, lines, trials))
    if store is not None and (known := _Chunk.of(store.load(0), parts[0])) is not None:
        _check_model(clf, store, known, trials)
    everything = _Chunk()
    with progress_bar(total=len(lines), desc="captions", unit="line", show=progress) as bar:
        for number, part in enumerate(parts):
            found = None if store is None else _Chunk.of(store.load(number), part)
            if found is None:
                found = _scored(clf, part, trials)
                if store is not None:
                    store.save(number, found.arrays)
            everything += found
            bar.update(len(part))
    return everything.scores, everything.unreadable


def _scored(clf: HybridClassifier, lines: Sequence[CaptionLine], trials: int) -> _Chunk:
    """Scores of some lines at once, and those that cannot be used."""
    try:
        scores = _together(clf, lines, trials)
    except InvalidInputError as error:
        if len(lines) == 1:
            return _Chunk([], [Unreadable(lines[0].line, str(error))])
        # one line is unusable, or captions of two lines read the same to the model: line by line they do no harm
        return sum((_scored(clf, [line], trials) for line in lines), _Chunk())
    finite = [bool(np.isfinite(one.gain).all()) for one in scores]
    failed = [Unreadable(line.line, "tier 2's errors are not finite") for line in compress(lines, np.invert(finite))]
    return _Chunk(list(compress(scores, finite)), failed)


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


def _check_model(clf: HybridClassifier, store: RecordingFolder, known: _Chunk, trials: int) -> None:
    """Check that both tiers say of the first line that could be used what they said when it was recorded."""
    for then in known.scores[:1]:
        (now,) = _together(clf, [then.line], trials)
        of_tier_1 = [(a, b) for a, b in [(then.tier_1, now.tier_1)] if a is not None and b is not None]
        store.check_model({"tier 1": of_tier_1, "tier 2": [(then.gain, now.gain)]})


def _manifest(clf: HybridClassifier, lines: Sequence[CaptionLine], trials: int) -> dict[str, Any]:
    """All that decides what is recorded, but for the weights of the tiers, which are told by their answers."""
    return {
        "model": {
            "tier 1": type(clf.proposer_).__name__,
            "tier 2": type(clf.denoiser_).__name__,
            "type of numbers": str(clf.denoiser_.dtype).removeprefix("torch."),
            "objective": clf._objective,
            "seed": clf._seed,
        },
        "data": {
            "lines": len(lines),
            "captions": _digest(json.dumps([line.line, *line.captions]).encode() for line in lines),
            "images": _digest(block for line in lines for path in line.images for block in _content(path)),
        },
        "settings": {"trials": trials, "chunk": CHUNK},
    }


def _content(path: Path) -> Iterator[bytes]:
    """Bytes of a file, block by block after its name; none of one that cannot be read."""
    yield path.name.encode()
    try:
        with path.open("rb") as file:
            while block := file.read(READ_AT_ONCE):
                yield block
    except OSError:
        pass


def _digest(blocks: Iterator[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
