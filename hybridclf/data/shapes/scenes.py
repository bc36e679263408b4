"""Random scenes of shapes in a spatial relation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .vocabulary import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, TEXTURES

__all__ = ["Scene", "Thing", "place", "scenes"]

_OUTER, _INNER = 0.56, 0.22
"""Diameters of an enclosing and an enclosed thing; captions of such scenes name no sizes."""


@dataclass(frozen=True)
class Thing:
    """One shape in a picture.

    Attributes
    ----------
    size, texture, colour, shape : str
        Words from the vocabulary.
    x, y : float
        Centre, as shares of the picture's edge from the left and from the top.
    diameter : float
        Diameter, as a share of the picture's edge.
    light : float
        Factor on the colour, in (0, 1].
    """

    size: str
    texture: str
    colour: str
    shape: str
    x: float = 0.5
    y: float = 0.5
    diameter: float = SIZES["large"]
    light: float = 1.0


@dataclass(frozen=True)
class Scene:
    """Content of a picture.

    Attributes
    ----------
    things : tuple of Thing
        The first stands in the relation to the second; others are anywhere else. Each is drawn over those before it,
        and the first is drawn last.
    relation : str or None
        One of `RELATIONS`; None with a single thing.
    ground : (float, float)
        Brightness of the background on the left and on the right, in [0, 1].
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    ground: tuple[float, float] = (0.1, 0.1)


def scenes(
    n: int, *, random_state: int, things: Sequence[int] = (1, 2, 2, 2, 3, 4), held_out: bool = False
) -> list[Scene]:
    """Draw random scenes whose things differ in colour and in shape.

    Parameters
    ----------
    n : int
        Number of scenes.
    random_state : int
        Seed of all random choices.
    things : sequence of int
        Numbers of things, 1 to 4, to choose from uniformly; repeat a number to choose it more often.
    held_out : bool
        False: no combination of colour and shape is in `HELD_OUT`. True: those of the first two things are.

    Returns
    -------
    list of n Scene
    """
    rng = np.random.default_rng(random_state)
    return [_scene(rng, int(rng.choice(things)), held_out) for _ in range(n)]


def _scene(rng: np.random.Generator, n: int, held_out: bool) -> Scene:
    relation = str(rng.choice(RELATIONS)) if n > 1 else None
    ground = tuple(rng.uniform(0.02, 0.3, 2).tolist())
    while True:  # rejection sampling: other things, until they find a place
        placed = place(rng, _words(rng, n, held_out), relation)
        if placed is not None:
            return Scene(placed, relation, (ground[0], ground[1]))


def _words(rng: np.random.Generator, n: int, held_out: bool) -> list[Thing]:
    """Draw things of different colours and shapes, not placed yet."""
    while True:
        colours, shapes = rng.permutation(list(COLOURS))[:n].tolist(), rng.permutation(list(SHAPES))[:n].tolist()
        held = [pair in HELD_OUT for pair in zip(colours, shapes, strict=True)]
        if all(held[:2]) if held_out else not any(held):
            break
    sizes, textures = rng.choice(list(SIZES), n).tolist(), rng.choice(list(TEXTURES), n).tolist()
    words = zip(sizes, textures, colours, shapes, strict=True)
    return [Thing(*w, diameter=SIZES[w[0]], light=float(rng.uniform(0.85, 1.0))) for w in words]


def place(rng: np.random.Generator, things: list[Thing], relation: str | None) -> tuple[Thing, ...] | None:
    """Place things at random so that the relation holds and none hides another; None after 20 failed tries."""
    if relation == "inside":
        things = [replace(things[0], diameter=_INNER), replace(things[1], diameter=_OUTER), *things[2:]]
    for _ in range(20):
        centres = [rng.uniform(t.diameter / 2, 1 - t.diameter / 2, 2).tolist() for t in things]
        placed = [replace(t, x=x, y=y) for t, (x, y) in zip(things, centres, strict=True)]
        if relation == "inside":
            placed[0] = replace(placed[0], x=placed[1].x, y=placed[1].y)
        if _apart(placed, relation) and _holds(placed, relation):
            return tuple(placed)
    return None


def _apart(things: Sequence[Thing], relation: str | None) -> bool:
    """Tell whether no two things overlap, leaving out a first thing inside the second."""
    pairs = list(combinations(things[1:] if relation == "inside" else things, 2))
    return all(max(abs(a.x - b.x), abs(a.y - b.y)) > (a.diameter + b.diameter) / 2 for a, b in pairs)


def _holds(things: Sequence[Thing], relation: str | None) -> bool:
    """Tell whether the first thing clearly stands in the relation to the second."""
    if relation is None or relation == "inside":
        return True
    right, down = things[1].x - things[0].x, things[1].y - things[0].y
    along, across = (right, down) if relation == "left of" else (down, right)
    return along > 2 * abs(across)  # within about 27° of the axis
