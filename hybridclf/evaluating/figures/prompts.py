"""Prompt templates: one, another, and the mean over many."""

from typing import Any

import numpy as np

from ...utils.progress import progress_bar
from ..study import Study
from .asking import Asking
from .drawing import Figure

__all__ = ["prompts"]

TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a bad photo of the {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "art of the {}.",
)
"""The label alone, the usual template, and four of those that CLIP's authors chose (arXiv 2103.00020)."""

RECORDED = "as recorded"


def prompts(study: Study) -> Figure:
    """Accuracy of tier 2 alone with each of several prompt templates, and with the mean of their errors."""
    ask, denoiser = Asking(study), study.clf.denoiser_
    tables: dict[str, Any] = {RECORDED: ask.recorded.errors["l2"]}
    with progress_bar(total=len(TEMPLATES), desc="prompts", unit="template", show=study.progress) as bar:
        for template in TEMPLATES:
            tables[f'"{template}"'] = ask.errors(denoiser=denoiser.with_prompts(template))[..., 0]
            bar.update()
    tables[f"mean of these {len(TEMPLATES)}"] = np.mean([tables[f'"{t}"'] for t in TEMPLATES], axis=0)
    reference = "One prompt, as in arXiv 2303.15233; templates of arXiv 2103.00020"
    return ask.figure("prompts", tables, RECORDED, reference, "prompts: ")
