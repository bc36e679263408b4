"""Drawing of scenes by signed distances."""

from collections.abc import Sequence

import numpy as np

from .scenes import Scene, Thing
from .vocabulary import COLOURS, DARK, SHAPES, TEXTURES

__all__ = ["draw"]


def draw(pictures: Sequence[Scene], size: int = 64) -> np.ndarray:
    """Draw scenes; the same scene always gives the same picture.

    Parameters
    ----------
    pictures : sequence of n Scene
        Scenes to draw.
    size : int
        Edge in pixels, ≥ 1.

    Returns
    -------
    uint8 array `[n, size, size, 3]`
        RGB.
    """
    middle = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.meshgrid(middle, middle, indexing="ij")  # [size, size]
    left, right = np.array([scene.ground for scene in pictures], dtype=np.float32).reshape(-1, 2).T[:, :, None, None]
    canvas = np.repeat((left + (right - left) * x)[..., None], 3, axis=-1)  # [n, size, size, 3]
    # the second thing first and the first thing last, so that a thing inside another is on top;
    # all things of one shape and rank are painted at once
    for order in (*range(1, max((len(scene.things) for scene in pictures), default=0)), 0):
        here = [i for i, scene in enumerate(pictures) if order < len(scene.things)]
        for shape in SHAPES:
            chosen = [i for i in here if pictures[i].things[order].shape == shape]
            if chosen:
                _paint(canvas, chosen, [pictures[i].things[order] for i in chosen], x, y)
    return (255 * canvas + 0.5).clip(0, 255).astype(np.uint8)


def _paint(canvas: np.ndarray, where: list[int], things: Sequence[Thing], x: np.ndarray, y: np.ndarray) -> None:
    """Paint one thing of the same shape on each of the pictures `where`, with soft edges one pixel wide."""
    at = np.array([(t.x, t.y, t.diameter / 2) for t in things], dtype=np.float32).T[:, :, None, None]  # [3, n, 1, 1]
    # distance to the outline as a share of the edge; half a pixel outside covers 0, half a pixel inside 1
    distance = SHAPES[things[0].shape]((x - at[0]) / at[2], (y - at[1]) / at[2]) * at[2]
    cover = np.clip(0.5 - distance * len(x), 0, 1)[..., None]
    tones = {name: np.where(pattern(x, y) > 0, 1.0, DARK) for name, pattern in TEXTURES.items()}
    tone = np.stack([tones[t.texture] for t in things])[..., None]
    colour = np.array([np.multiply(COLOURS[t.colour], t.light) for t in things], dtype=np.float32)[:, None, None]
    # alpha blending: background + cover · (colour - background)
    canvas[where] += cover * (tone * colour - canvas[where])
