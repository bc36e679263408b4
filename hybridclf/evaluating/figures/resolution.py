"""Coarser images, and models that look at them at a lower resolution."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ...data.arrays import Items
from ...errors import InvalidInputError
from ...proposer import aligned_log_proba
from ...utils.progress import progress_bar
from ..study import Study
from ..wording import percent
from .asking import Asking
from .drawing import Figure

__all__ = ["coarser", "resolution"]

FACTORS = (2, 4)
"""Images are made coarser by these."""

AS_GIVEN = "as given"


def resolution(study: Study) -> Figure:
    """Accuracy of tier 2 alone on images made coarser and, if it can be set, at half of the model's resolution.

    Rows of coarser images have tier 1's accuracy on them as well.
    """
    ask = Asking(study)
    tables: dict[str, np.ndarray] = {AS_GIVEN: ask.recorded.errors["l2"]}
    tier_1 = {AS_GIVEN: _tier_1(study, ask, ask.images)}
    with progress_bar(total=len(FACTORS), desc="resolution", unit="pass", show=study.progress) as bar:
        for factor in FACTORS:
            images, name = coarser(ask.images, factor), f"1/{factor} of the pixels a side"
            tables[name], tier_1[name] = ask.errors(images=images)[..., 0], _tier_1(study, ask, images)
            bar.update()
    if (model := _at_half(study.clf.denoiser_)) is not None:
        tables[f"model at {model.resolution} pixels"] = ask.errors(denoiser=model)[..., 0]
    reference = "Section 7 of arXiv 2303.16203; degraded input of arXiv 2303.15233"
    figure = ask.figure("resolution", tables, AS_GIVEN, reference, "images: ")
    rows = [{**row, "tier_1": tier_1.get(row["resolution"])} for row in figure.rows]
    return replace(figure, title=f"{figure.title}; tier 1: {_listed(tier_1)}", rows=rows)


def _tier_1(study: Study, ask: Asking, images: Any) -> float:
    """Tier 1's accuracy."""
    log_proba = aligned_log_proba(study.clf.proposer_, Items(images, images), study.clf.classes_)
    return float((log_proba.argmax(axis=1) == ask.recorded.y).mean())


def _at_half(denoiser: Any) -> Any:
    """The denoiser at half its resolution; None if that cannot be set."""
    if not hasattr(denoiser, "at_resolution"):
        return None
    with suppress(InvalidInputError):  # no multiple of its patches
        return denoiser.at_resolution(denoiser.resolution // 2)
    return None


def _listed(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(value)}" for name, value in accuracies.items())


def coarser(images: Any, factor: int) -> Any:
    """Images of the same size with a `factor`-th of the detail a side: shrunk by averaging, then enlarged (bicubic).

    Parameters
    ----------
    images : array `[n, H, W, C]`, or list of PIL images
        What is made coarser.
    factor : int
        At least 2.
    """
    if not isinstance(images, np.ndarray):
        return [_coarser(image, factor) for image in images]
    x = torch.from_numpy(images.astype(float)).permute(0, 3, 1, 2)
    small = F.adaptive_avg_pool2d(x, (max(1, x.shape[2] // factor), max(1, x.shape[3] // factor)))
    large = F.interpolate(small, x.shape[2:], mode="bicubic", align_corners=False).clamp(x.min(), x.max())
    out = large.permute(0, 2, 3, 1).numpy()
    return (out.round() if images.dtype.kind in "iu" else out).astype(images.dtype)


def _coarser(image: Image.Image, factor: int) -> Image.Image:
    small = (max(1, image.width // factor), max(1, image.height // factor))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
