"""Vocabulary of the shapes data set: words for colours, sizes, relations, shapes and textures, and their looks."""

from collections.abc import Callable

import numpy as np

__all__ = ["COLOURS", "DARK", "HELD_OUT", "RELATIONS", "SHAPES", "SIZES", "TEXTURES"]

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.65, 0.15),
    "cyan": (0.15, 0.90, 0.90),
    "blue": (0.15, 0.25, 0.95),
    "purple": (0.55, 0.15, 0.75),
    "pink": (1.00, 0.60, 0.80),
    "brown": (0.50, 0.28, 0.10),
    "white": (1.00, 1.00, 1.00),
}
"""RGB values in [0, 1], by name."""

SIZES = {"small": 0.22, "medium": 0.31, "large": 0.42}
"""Diameters as shares of the picture's edge, by name."""

RELATIONS = ("left of", "above", "inside")
"""Relations of a scene's first thing to its second."""


def _polygon_star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to a five-pointed star: a straight line in each of its ten mirrored sectors."""
    sector = 2 * np.pi / 5
    # fold the plane into one half sector, in which the outline runs from the tip (1, 0) to an inner corner
    angle = np.abs((np.arctan2(u, -v) + sector / 2) % sector - sector / 2)
    radius, inner = np.hypot(u, v), 0.45
    edge = np.array([inner * np.cos(sector / 2) - 1, inner * np.sin(sector / 2)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return normal[0] * (radius * np.cos(angle) - 1) + normal[1] * radius * np.sin(angle)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    long, wide = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(long - 1, wide - 0.34)


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: np.hypot(u, v) - 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.88,
    "triangle": lambda u, v: np.maximum(0.87 * np.abs(u) - 0.5 * v - 0.5, v - 0.8),
    "diamond": lambda u, v: 0.71 * (np.abs(u) + np.abs(v) - 1.05),
    "cross": _cross,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.76) - 0.24,
    "star": _polygon_star,
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 1, 0.85 - np.hypot(u - 0.55, v)),
}
"""Signed distances to the outlines, negative inside, in units of half a diameter; v points down."""

TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda x, y: np.ones_like(x),
    "striped": lambda x, y: np.sin(2 * np.pi * 9 * y),
    "dotted": lambda x, y: 0.35 - np.cos(2 * np.pi * 8 * x) * np.cos(2 * np.pi * 8 * y),
    "checkered": lambda x, y: np.sin(2 * np.pi * 6 * x) * np.sin(2 * np.pi * 6 * y),
}
"""Patterns over the picture: the full colour where positive, a darker one where negative."""

DARK = 0.45
"""Factor of the darker colour in textures."""

HELD_OUT = frozenset((colour, list(SHAPES)[(3 * i + 1) % len(SHAPES)]) for i, colour in enumerate(COLOURS))
"""Ten combinations of a colour and a shape, one for each colour, that training never sees."""
