"""`hybridclf evaluate` of images and captions."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInputError
from .classifier import choose_classifier

if TYPE_CHECKING:
    from ..evaluating.caption_report import CaptionReport

__all__ = ["is_captions", "match_captions"]


def is_captions(data: str) -> bool:
    """Tell whether DATA is a file of images and captions, by its ending."""
    return Path(data).suffix.lower() == ".jsonl"


def match_captions(
    data: str,
    model: str | None,
    proposer: str | None,
    denoiser: str | None,
    calibrate: str | None,
    images: int | None,
    trials: int | None,
    device: str | None,
    progress: bool,
    others: dict[str, object],
) -> "CaptionReport":
    """Match the images and captions of a file by both tiers.

    Parameters
    ----------
    data, calibrate, images, trials
        As for `evaluating.captions.evaluate_captions`.
    model, proposer, denoiser, device
        As for `choose_classifier`.
    progress : bool
        Show progress bars.
    others : dict of str to value
        Options that are for labelled images alone, by name.

    Raises
    ------
    InvalidInputError
        For one of these options, and as `evaluate_captions` does.
    """
    from ..evaluating.caption_lines import read_lines
    from ..evaluating.captions import evaluate_captions

    if given := [name for name, value in others.items() if value is not None]:
        raise InvalidInputError(f"--{given[0]} is for labelled images, and {data} holds captions: leave it out")
    if model is None and proposer is None and denoiser is None:
        raise InvalidInputError("captions need two models of text: --model shapes, or --proposer and --denoiser")
    # a pair by name is loaded with labels, which its captions have nothing to do with
    labels = (
        None if model is not None else list(dict.fromkeys(c for line in read_lines(data)[0] for c in line.captions))
    )
    clf = choose_classifier(model, labels and labels[:2], None, proposer, denoiser, None, device)
    options = {} if trials is None else {"trials": trials}
    return evaluate_captions(clf, data, calibrate=calibrate, images=images, progress=progress, **options)
