"""Scores of captions: how well a diffusion model of text explains an image under each, and what tier 1 says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data.arrays import Items
from .errors import InvalidInputError, InvalidTypeError
from .ports import TextModel
from .reranker import Reranker

__all__ = [
    "CaptionScores",
    "check_captions",
    "different_texts",
    "score_captions",
    "tier_1_scores",
    "without_template",
]

NO_PROMPT = ""
"""Text that stands for no caption at all."""


@dataclass(frozen=True)
class CaptionScores:
    """Both tiers' scores of one image's captions.

    Attributes
    ----------
    captions : tuple of str `[k]`
        The captions.
    errors : float32 array `[T, k]`
        Weighted error of each caption in each trial, summed over the dimensions of the encoded image; nan if one of the
        image's errors was not finite.
    unconditional : float32 array `[T]`
        The same of no prompt, in the same trials.
    tier_1 : float array `[k]` or None
        Tier 1's unnormalised log-probabilities, which can be compared between images (CLIP: scaled cosine similarities,
        in nats). None if tier 1 is no model of text.
    """

    captions: tuple[str, ...]
    errors: np.ndarray
    unconditional: np.ndarray
    tier_1: np.ndarray | None

    @property
    def error(self) -> np.ndarray:
        """Mean error over the trials `[k]`, lower is better; comparable between the captions of this image alone."""
        return self.errors.mean(axis=0, dtype=float)

    @property
    def gain(self) -> np.ndarray:
        """Mean error of no prompt minus that of each caption `[k]`, higher is better; comparable between images too."""
        return self.unconditional.mean(dtype=float) - self.error


def check_captions(captions: Any, n_images: int) -> list[tuple[str, ...]]:
    """Captions image by image, from n sequences of them or from one sequence for all images.

    Raises
    ------
    InvalidInputError
        For a text in place of a sequence of them, another number of sequences than images, an image without captions,
        or a caption that is empty, there twice or no text.
    """
    if isinstance(captions, str):  # a sequence, too: of letters
        raise InvalidInputError(f"captions must be lists of texts, got the text {captions!r}; give [{captions!r}]")
    given = list(captions)
    texts = [own for own in given if isinstance(own, str)]
    if texts and len(texts) < len(given):
        raise InvalidInputError(
            f"some captions are lists and some are texts, such as {texts[0]!r}; give one list per image: [{texts[0]!r}]"
        )
    listed = [tuple(given)] * n_images if texts else [tuple(own) for own in given]
    if len(listed) != n_images:
        raise InvalidInputError(f"got {n_images} images and {len(listed)} lists of captions; give one list per image")
    for i, own in enumerate(listed):
        if not own or not all(isinstance(caption, str) and caption.strip() for caption in own):
            raise InvalidInputError(f"image {i} needs captions that are texts and not empty, got {list(own)!r}")
        if len(set(own)) < len(own):
            raise InvalidInputError(f"image {i} has a caption twice: {list(own)!r}")
    return listed


def different_texts(captions: Sequence[Sequence[str]]) -> list[str]:
    """All different captions of all images, in their order, and the empty text of no prompt."""
    return [*dict.fromkeys(caption for own in captions for caption in own), NO_PROMPT]


def without_template(denoiser: Any) -> Any:
    """The denoiser reading captions as they are, without its prompt template.

    Raises
    ------
    InvalidTypeError
        If it is no model of text.
    """
    if not isinstance(denoiser, TextModel):
        raise InvalidTypeError(
            f"captions need a denoiser that is a model of text, and {type(denoiser).__name__} knows classes alone; use "
            'one such as HybridClassifier.from_pretrained("shapes"), or denoiser="diffusers:FOLDER" with Stable '
            "Diffusion in that folder"
        )
    return denoiser.with_prompts("{}")


def score_captions(
    proposer: Any, stage: Reranker, items: Items, captions: Sequence[tuple[str, ...]], progress: bool = False
) -> list[CaptionScores]:
    """Score each image's captions by the stage's trials, which are the same for all of them.

    Parameters
    ----------
    proposer : object
        Tier 1.
    stage : Reranker
        Reads captions as they are; its allocation drops none.
    items : Items
        n images.
    captions : n tuples of str `[k]`
        As `check_captions` returns them.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of CaptionScores `[n]`
    """
    results = stage.rerank(items.images, [(*own, NO_PROMPT) for own in captions], progress=progress)
    first = tier_1_scores(proposer, items.images, captions)
    scores = []
    for own, result, tier_1 in zip(captions, results, first, strict=True):
        errors = result.evidence
        if result.stopped_by == "fallback":
            errors = np.full((stage.allocation.max_trials, len(own) + 1), np.nan, np.float32)
        scores.append(CaptionScores(own, errors[:, :-1], errors[:, -1], tier_1))
    return scores


def tier_1_scores(proposer: Any, images: Any, captions: Sequence[tuple[str, ...]]) -> list[np.ndarray] | list[None]:
    """Tier 1's scores of each image's captions, n arrays `[k]`; n times None if it is no model of text."""
    if not isinstance(proposer, TextModel) or not hasattr(proposer, "logits"):
        return [None] * len(captions)
    texts = different_texts(captions)[:-1]
    reader: Any = proposer.with_prompts("{}")
    logits = reader.fit(None, texts).logits(images)  # [n, all]
    number = {text: i for i, text in enumerate(texts)}
    return [row[[number[caption] for caption in own]] for row, own in zip(logits, captions, strict=True)]
