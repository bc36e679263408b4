"""Questions about scenes: attribute tasks (arXiv 2303.15233), swapped captions as in Winoground, single things.

Training scenes have seeds below `train_shapes.HELD_OUT_SEED`; these are given others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np

from hybridclf.data.shapes import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    TEXTURES,
    Scene,
    Thing,
    caption,
    draw,
    phrase,
    scenes,
    swapped,
)

SWAPS = ("objects", "colours", "textures", "relation")


@dataclass(frozen=True)
class Questions:
    """n pictures uint8 `[n, 64, 64, 3]`, each with its captions, the right one first."""

    pictures: np.ndarray
    captions: list[tuple[str, ...]]


# --- attribute tasks --------------------------------------------------------------------------------------------------


def _control(thing: Thing, other: Thing, name: str, rng: np.random.Generator) -> Thing:
    """With an attribute that is nowhere in the picture."""
    values = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES}[name]
    absent = [v for v in values if v not in (getattr(thing, name), getattr(other, name))]
    return replace(thing, **{name: str(rng.choice(absent))})


def _binding(thing: Thing, other: Thing, name: str, rng: np.random.Generator) -> Thing:
    """With the other thing's attribute."""
    return replace(thing, **{name: getattr(other, name)})


def attribute_questions(n: int, seed: int, held_out: bool) -> dict[str, Questions]:
    """Control, A|B binding and pair binding, for colour, shape and texture, in pictures of two things.

    Control asks for one thing, against the same with an attribute that neither has; A|B binding against the same with
    the other's attribute; pair binding describes both, leftmost first, against the attribute swapped.
    """
    drawn = _some(
        n, seed, held_out, (2,), lambda s: _sides(s) and (held_out or _familiar(swapped(s, "colours", _UNUSED)))
    )
    rng, asked = np.random.default_rng(seed), {}
    makers: dict[str, Callable] = {"control": _control, "binding": _binding}
    for task, make in makers.items():
        for name in ("colour", "shape", "texture"):
            asked[f"{task}, {name}"] = _ask(drawn, lambda s, m=make, a=name: _about_one(s, m, a, rng))
    for name in ("colour", "texture"):
        asked[f"pair binding, {name}"] = _ask(drawn, lambda s, a=name: _about_both(s, a))
    return asked


def _some(n: int, seed: int, held_out: bool, things: tuple[int, ...], wanted: Callable[[Scene], bool]) -> list[Scene]:
    """The first n random scenes that are wanted."""
    parts = (scenes(100, random_state=1000 * seed + i, things=things, held_out=held_out) for i in count())
    return list(islice((s for part in parts for s in part if wanted(s)), n))


_UNUSED = np.random.default_rng(0)


def _familiar(scene: Scene) -> bool:
    """True if training may have seen all that is in it."""
    return not any((t.colour, t.shape) in HELD_OUT for t in scene.things)


def _sides(scene: Scene) -> bool:
    """True if one thing is left of the other, and they differ in texture."""
    return scene.relation == "left of" and scene.things[0].texture != scene.things[1].texture


def _about_one(scene: Scene, change: Callable, name: str, rng: np.random.Generator) -> tuple[str, str]:
    first = int(rng.integers(2))
    thing, other = scene.things[first], scene.things[1 - first]
    textured = name == "texture"
    wrong = change(thing, other, name, rng)
    return phrase(thing, texture=textured, colour=not textured), phrase(wrong, texture=textured, colour=not textured)


def _about_both(scene: Scene, name: str) -> tuple[str, str]:
    other = swapped(scene, f"{name}s", _UNUSED)
    return tuple(" and ".join(phrase(t, texture=name == "texture") for t in s.things) for s in (scene, other))


def _ask(drawn: list[Scene], words: Callable[[Scene], tuple[str, ...]]) -> Questions:
    return Questions(draw(drawn), [words(s) for s in drawn])


# --- swapped captions -------------------------------------------------------------------------------------------------


def swap_questions(n: int, seed: int, held_out: bool) -> dict[str, Questions]:
    """Pairs of pictures whose captions swap objects, colours, textures, or have another relation.

    Questions 2i and 2i + 1 are a pair: the wrong caption of one is the right one of the other.
    """
    return {what: _pairs(n, seed + i, held_out, what) for i, what in enumerate(SWAPS)}


def _pairs(n: int, seed: int, held_out: bool, what: str) -> Questions:
    rng = np.random.default_rng(seed)

    def differs(scene: Scene) -> bool:
        if what == "textures":
            return scene.things[0].texture != scene.things[1].texture
        return held_out or what != "colours" or _familiar(swapped(scene, what, rng))

    drawn = _some(n, seed, held_out, (2, 2, 2, 3), differs)
    both = [(scene, swapped(scene, what, rng)) for scene in drawn]
    words = [tuple(caption(s, texture=what == "textures") for s in pair) for pair in both]
    return Questions(draw([s for pair in both for s in pair]), [c for a, b in words for c in ((a, b), (b, a))])


# --- single things ----------------------------------------------------------------------------------------------------


def single_things() -> list[str]:
    """All eighty combinations of a colour and a shape, in words."""
    return [phrase(Thing("", "", colour, shape)) for colour in COLOURS for shape in SHAPES]


def changed_questions(n: int, seed: int) -> dict[str, Questions]:
    """Pictures of one thing: its phrase against one with another colour, shape or texture."""
    drawn, rng = scenes(n, random_state=seed, things=(1,)), np.random.default_rng(seed)

    def words(thing: Thing, name: str) -> tuple[str, str]:
        textured = name == "texture"
        return tuple(phrase(t, texture=textured) for t in (thing, _control(thing, thing, name, rng)))

    return {name: _ask(drawn, lambda s, a=name: words(s.things[0], a)) for name in ("colour", "shape", "texture")}


def single_questions(n: int, seed: int, held_out: bool) -> Questions:
    """Pictures of one thing: which of all eighty combinations of a colour and a shape it is."""
    drawn, every = scenes(n, random_state=seed, things=(1,), held_out=held_out), single_things()
    return _ask(drawn, lambda s: (phrase(s.things[0]), *(p for p in every if p != phrase(s.things[0]))))
