"""Images that re-ranking fixed or broke, with both posteriors, as a page shows them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data.arrays import as_pil
from ..data.decoding import MODES, convert
from ..ports import Label
from .methods import TIER_1
from .study import Study

__all__ = ["SHOWN", "Example", "data_uri", "examples_of"]

SHOWN, NAMED = 10, 3
"""Images of either kind, and classes that are named beside one."""

SIDE = 160
"""Pixels that a picture is brought to, about: small ones in whole steps, so that they stay sharp."""


@dataclass(frozen=True)
class Share:
    """Probability of a class by tier 1 and by the hybrid."""

    label: Label
    before: float
    after: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One image that the hybrid fixed or broke.

    Attributes
    ----------
    fixed : bool
        Else it was broken.
    label, before, after : label
        The right class, tier 1's and the hybrid's.
    evaluations : int
        What it cost.
    shares : list of Share
        The likeliest classes and the right one.
    picture : str
        A PNG as a data URI; "" where items are no pictures.
    """

    fixed: bool
    label: Label
    before: Label
    after: Label
    evaluations: int
    shares: Sequence[Share]
    picture: str


def examples_of(study: Study) -> list[Example]:
    """Some of the test images that the recommended hybrid fixed, then some of those that it broke, by chance."""
    y, before, after = study.test.y, study.answers[TIER_1], study.answers[study.hybrid]
    fixed, broken = (after.label == y) & (before.label != y), (after.label != y) & (before.label == y)
    return [_example(study, i, kind is fixed) for kind in (fixed, broken) for i in study.examples(kind, SHOWN)]


def _example(study: Study, i: int, fixed: bool) -> Example:
    labels, y = study.test.labels, int(study.test.y[i])
    before, after = (study.answers[name] for name in (TIER_1, study.hybrid))
    p, q = before.posterior[i], after.posterior[i]
    order = np.argsort(-np.maximum(p, q), kind="stable")[:NAMED].tolist()
    shown = list(dict.fromkeys([*order, y]))[: NAMED + 1]
    return Example(
        fixed=fixed,
        label=labels[y],
        before=labels[int(before.label[i])],
        after=labels[int(after.label[i])],
        evaluations=int(after.evaluations[i]),
        shares=[Share(labels[c], float(p[c]), float(q[c]), c == y) for c in shown],
        picture=_picture(study, i),
    )


def _picture(study: Study, i: int) -> str:
    """A test image as a PNG in a data URI; "" for an array that is no picture."""
    item = study.test_items.images[i]
    if isinstance(item, np.ndarray):
        if item.ndim < 2 or (item.ndim == 3 and item.shape[2] not in MODES):
            return ""
        if item.dtype != np.uint8:
            low, high = study.clf.pixel_range_ or (float(item.min()), float(item.max()))
            item = (np.clip((item - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return data_uri(as_pil(item))


def data_uri(image: Image.Image) -> str:
    """A picture as a PNG in a data URI, about `SIDE` pixels a side."""
    if image.mode not in MODES.values():  # PNG has no CMYK, YCbCr or LAB
        image = convert(image, "RGB")
    step = SIDE // max(image.size)
    if step > 1:
        image = image.resize((step * image.width, step * image.height), Image.Resampling.NEAREST)
    else:
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
