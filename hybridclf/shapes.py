"""Pictures of coloured shapes in spatial relations, with captions: a small world in which word order matters.

>>> scene = scenes(1, random_state=0)[0]
>>> draw([scene], size=64).shape
(1, 64, 64, 3)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

__all__ = ["COLOURS", "EXCHANGED", "HELD_OUT", "RELATIONS", "SHAPES", "SIZES", "TEXTURES", "Scene", "Thing"]
__all__ += ["caption", "draw", "phrase", "scenes", "swapped", "wrong_caption"]

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
"""Names and RGB values in [0, 1]."""

SIZES = {"small": 0.22, "medium": 0.31, "large": 0.42}
"""Names and diameters, as shares of the picture's edge."""

_OUTER, _INNER = 0.56, 0.22
"""Diameters of two things one of which is inside the other; their captions name no sizes."""

RELATIONS = ("left of", "above", "inside")
"""How the first thing of a scene stands to the second."""


@dataclass(frozen=True)
class Thing:
    """One shape in a picture.

    Attributes
    ----------
    size, texture, colour, shape : str
        Its words.
    x, y : float
        Its centre, as shares of the picture's edge from the left and from the top.
    diameter : float
        As a share of the picture's edge.
    light : float
        Factor on its colour, in (0, 1].
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
    """What is in a picture.

    Attributes
    ----------
    things : tuple of Thing
        The first stands in the relation to the second; others are anywhere else. Later ones are drawn over earlier
        ones, but the first is drawn last.
    relation : str or None
        One of `RELATIONS`; None with a single thing.
    ground : (float, float)
        Brightness of the background on the left and on the right, in [0, 1].
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    ground: tuple[float, float] = (0.1, 0.1)


# --- drawing ----------------------------------------------------------------------------------------------------------


def _polygon_star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to a five-pointed star: in one of its ten mirrored sectors it is a straight line."""
    sector = 2 * np.pi / 5
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
"""Patterns over the picture: the colour itself where positive, a darker one where negative."""

_DARK = 0.45

HELD_OUT = frozenset((colour, list(SHAPES)[(3 * i + 1) % len(SHAPES)]) for i, colour in enumerate(COLOURS))
"""Ten combinations of a colour and a shape, one for each colour, that training never sees."""


def draw(pictures: Sequence[Scene], size: int = 64) -> np.ndarray:
    """Pictures of scenes, uint8 RGB `[n, size, size, 3]`; the same scene is always the same picture.

    Parameters
    ----------
    pictures : sequence of n Scene
        What to draw.
    size : int
        Edge in pixels, ≥ 1.
    """
    middle = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.meshgrid(middle, middle, indexing="ij")  # [size, size]
    left, right = np.array([scene.ground for scene in pictures], dtype=np.float32).reshape(-1, 2).T[:, :, None, None]
    canvas = np.repeat((left + (right - left) * x)[..., None], 3, axis=-1)  # [n, size, size, 3]
    for order in (*range(1, max((len(scene.things) for scene in pictures), default=0)), 0):
        here = [i for i, scene in enumerate(pictures) if order < len(scene.things)]
        for shape in SHAPES:
            chosen = [i for i in here if pictures[i].things[order].shape == shape]
            if chosen:
                _paint(canvas, chosen, [pictures[i].things[order] for i in chosen], x, y)
    return (255 * canvas + 0.5).clip(0, 255).astype(np.uint8)


def _paint(canvas: np.ndarray, where: list[int], things: Sequence[Thing], x: np.ndarray, y: np.ndarray) -> None:
    """Paint one thing of the same shape on each of some pictures, with soft edges one pixel wide."""
    at = np.array([(t.x, t.y, t.diameter / 2) for t in things], dtype=np.float32).T[:, :, None, None]
    distance = SHAPES[things[0].shape]((x - at[0]) / at[2], (y - at[1]) / at[2]) * at[2]
    cover = np.clip(0.5 - distance * len(x), 0, 1)[..., None]
    tones = {name: np.where(pattern(x, y) > 0, 1.0, _DARK) for name, pattern in TEXTURES.items()}
    tone = np.stack([tones[t.texture] for t in things])[..., None]
    colour = np.array([np.multiply(COLOURS[t.colour], t.light) for t in things], dtype=np.float32)[:, None, None]
    canvas[where] += cover * (tone * colour - canvas[where])


# --- scenes -----------------------------------------------------------------------------------------------------------


def scenes(
    n: int, *, random_state: int, things: Sequence[int] = (1, 2, 2, 2, 3, 4), held_out: bool = False
) -> list[Scene]:
    """Random scenes whose things differ in colour and in shape.

    Parameters
    ----------
    n : int
        How many.
    random_state : int
        Decides everything.
    things : sequence of int
        Numbers of things, 1 to 4, to choose from; those that come up more often are chosen more often.
    held_out : bool
        False: no thing has a combination of colour and shape that is in `HELD_OUT`. True: all have, or, in scenes
        of more than two things, the first two.
    """
    rng = np.random.default_rng(random_state)
    return [_scene(rng, int(rng.choice(things)), held_out) for _ in range(n)]


def _scene(rng: np.random.Generator, n: int, held_out: bool) -> Scene:
    relation = str(rng.choice(RELATIONS)) if n > 1 else None
    ground = tuple(rng.uniform(0.02, 0.3, 2).tolist())
    while True:
        placed = _placed(rng, _words(rng, n, held_out), relation)
        if placed is not None:
            return Scene(placed, relation, (ground[0], ground[1]))


def _words(rng: np.random.Generator, n: int, held_out: bool) -> list[Thing]:
    """Things of different colours and shapes, not placed yet."""
    while True:
        colours, shapes = rng.permutation(list(COLOURS))[:n].tolist(), rng.permutation(list(SHAPES))[:n].tolist()
        held = [pair in HELD_OUT for pair in zip(colours, shapes, strict=True)]
        if all(held[:2]) if held_out else not any(held):
            break
    sizes, textures = rng.choice(list(SIZES), n).tolist(), rng.choice(list(TEXTURES), n).tolist()
    words = zip(sizes, textures, colours, shapes, strict=True)
    return [Thing(*w, diameter=SIZES[w[0]], light=float(rng.uniform(0.85, 1.0))) for w in words]


def _placed(rng: np.random.Generator, things: list[Thing], relation: str | None) -> tuple[Thing, ...] | None:
    """The things at random places where the relation holds and none hides another; None if that did not work out."""
    if relation == "inside":
        things = [replace(things[0], diameter=_INNER), replace(things[1], diameter=_OUTER), *things[2:]]
    for _ in range(20):
        placed = [_anywhere(rng, t) for t in things]
        if relation == "inside":
            placed[0] = replace(placed[0], x=placed[1].x, y=placed[1].y)
        if _apart(placed, relation) and _holds(placed, relation):
            return tuple(placed)
    return None


def _anywhere(rng: np.random.Generator, thing: Thing) -> Thing:
    x, y = rng.uniform(thing.diameter / 2, 1 - thing.diameter / 2, 2).tolist()
    return replace(thing, x=x, y=y)


def _apart(things: Sequence[Thing], relation: str | None) -> bool:
    """Whether no two things overlap, but for the one that is inside the other."""
    pairs = list(combinations(things[1:] if relation == "inside" else things, 2))
    return all(max(abs(a.x - b.x), abs(a.y - b.y)) > (a.diameter + b.diameter) / 2 for a, b in pairs)


def _holds(things: Sequence[Thing], relation: str | None) -> bool:
    """Whether the first thing clearly stands in the relation to the second."""
    if relation is None or relation == "inside":
        return True
    right, down = things[1].x - things[0].x, things[1].y - things[0].y
    along, across = (right, down) if relation == "left of" else (down, right)
    return along > 2 * abs(across)


# --- words ------------------------------------------------------------------------------------------------------------


def phrase(thing: Thing, *, size: bool = False, texture: bool = False, colour: bool = True) -> str:
    """A thing in words, such as "a small striped red circle"."""
    words = (thing.size if size else "", thing.texture if texture else "", thing.colour if colour else "", thing.shape)
    text = " ".join(filter(None, words))
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def caption(scene: Scene, rng: np.random.Generator | None = None, *, texture: bool = False) -> str:
    """A true caption.

    Without `rng`: the first two things by colour and shape (and texture, if wanted), in their relation. With it:
    words and things are left out at random, now and then the relation, or all but one thing.
    """
    if rng is None:
        return _sentence([phrase(t, texture=texture) for t in scene.things[:2]], scene.relation)
    sized = scene.relation != "inside"
    said = rng.random((len(scene.things), 4)) < (0.4, 0.4, 0.9, 0.5)  # size, texture, colour; the others at all
    phrases = [
        phrase(t, size=sized and bool(w[0]), texture=bool(w[1]), colour=bool(w[2]))
        for t, w in zip(scene.things, said, strict=True)
    ]
    related, single, which, flipped = rng.random(4) < (0.85, 0.2, 0.5, 0.5)
    if len(phrases) == 1 or single:
        return phrases[0 if which else -1]
    others = [p for p, w in zip(phrases[2:], said[2:], strict=True) if w[3]]
    if related:
        return _sentence(phrases[:2], scene.relation, others)
    return _sentence(phrases[1::-1] if flipped else phrases[:2], "and", others)


def _sentence(first: Sequence[str], relation: str | None, others: Sequence[str] = ()) -> str:
    return " and ".join([f" {relation} ".join(first), *others])


EXCHANGED = {
    "objects": ("texture", "colour", "shape"),
    "colours": ("colour",),
    "textures": ("texture",),
}
"""What `swapped` exchanges between the first two things of a scene."""


def swapped(scene: Scene, what: str, rng: np.random.Generator) -> Scene:
    """A scene whose caption has the same words as this one's, in another order, or another relation.

    Parameters
    ----------
    scene : Scene
        Of at least two things.
    what : str
        A key of `EXCHANGED`: the first two things exchange these, and keep place and size. Or "relation": another
        one, and all things at new places.
    rng : Generator
        Decides the new relation and places.
    """
    if what == "relation":
        return _related_otherwise(scene, rng)
    a, b, *others = scene.things
    names = EXCHANGED[what]
    ours, theirs = ({name: getattr(t, name) for name in names} for t in (a, b))
    return replace(scene, things=(replace(a, **theirs), replace(b, **ours), *others))


def _related_otherwise(scene: Scene, rng: np.random.Generator) -> Scene:
    while True:
        relation = str(rng.choice([r for r in RELATIONS if r != scene.relation]))
        things = _placed(rng, [replace(t, diameter=SIZES[t.size]) for t in scene.things], relation)
        if things is not None:
            return replace(scene, things=things, relation=relation)


def wrong_caption(scene: Scene, seed: int) -> tuple[str, str]:
    """The random caption that `seed` gives a scene, and one that differs a little and is false.

    Words are swapped, the relation is another, or one word is changed for one that fits nothing in the picture. No
    thing in it has a combination of colour and shape that is in `HELD_OUT`: it would be learned to be false.
    """
    right, rng = caption(scene, np.random.default_rng(seed)), np.random.default_rng([seed, 1])
    related = f" {scene.relation} " in right
    swaps = ["colours", "colours", "textures", *(["objects", "objects", "relation"] if related else [])]
    changes = ["colour", "shape", "texture", "size"]
    while True:
        change = str(rng.choice(swaps + changes if len(scene.things) > 1 else changes))
        other = _changed(scene, change, rng) if change in changes else swapped(scene, change, rng)
        wrong = caption(other, np.random.default_rng(seed))
        if wrong != right and not any((t.colour, t.shape) in HELD_OUT for t in other.things):
            return right, wrong


def _changed(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The scene with one attribute of one thing changed to a value that is nowhere in it, if there is one."""
    words = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}[name]
    i = int(rng.integers(len(scene.things)))
    there = (
        {getattr(t, name) for t in scene.things} if name in ("colour", "shape") else {getattr(scene.things[i], name)}
    )
    changed = replace(scene.things[i], **{name: str(rng.choice([w for w in words if w not in there]))})
    return replace(scene, things=(*scene.things[:i], changed, *scene.things[i + 1 :]))
