"""`hybridclf evaluate` of images and captions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError
from .classifier import choose_classifier

if TYPE_CHECKING:
    from ..evaluating.caption_report import CaptionReport

__all__ = ["match_captions"]


def match_captions(
    data: str,
    tiers: Mapping[str, Any],
    unused: Mapping[str, object],
    *,
    calibrate: str | None,
    images: int | None,
    trials: int | None,
    folder: Path,
    progress: bool,
) -> "CaptionReport":
    """Match the images and captions of a file by both tiers.

    Parameters
    ----------
    data, calibrate, images, trials, folder, progress
        As for `evaluating.captions.evaluate_captions`.
    tiers : mapping of str to str
        Model, or proposer and denoiser, and device: arguments of `choose_classifier`.
    unused : mapping of str to value
        Options that are for labelled images alone, by name.

    Raises
    ------
    InvalidInputError
        For one of these options, no model, and as `evaluate_captions` does.
    """
    from ..evaluating.caption_lines import read_lines
    from ..evaluating.captions import TRIALS, evaluate_captions
    from ..evaluating.page import require_jinja2

    if given := [name for name, value in unused.items() if value is not None]:
        raise InvalidInputError(f"--{given[0]} is for labelled images, and {data} holds captions: leave it out")
    if all(tiers[name] is None for name in ("model", "proposer", "denoiser")):
        raise InvalidInputError("captions need two models of text: --model shapes, or --proposer and --denoiser")
    require_jinja2()  # before the minutes are spent
    labels = None
    if tiers["model"] is None:  # tiers by name are loaded with labels, whichever they are
        labels = list(dict.fromkeys(caption for line in read_lines(data)[0] for caption in line.captions))[:2]
    clf = choose_classifier(tiers["model"], labels, None, tiers["proposer"], tiers["denoiser"], None, tiers["device"])
    n_trials = TRIALS if trials is None else trials
    return evaluate_captions(
        clf, data, calibrate=calibrate, images=images, trials=n_trials, folder=folder, progress=progress
    )
