"""Captions of scenes, true and false."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .scenes import Scene, Thing, place
from .vocabulary import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, TEXTURES

__all__ = ["EXCHANGED", "caption", "phrase", "swapped", "wrong_caption"]


def phrase(thing: Thing, *, size: bool = False, texture: bool = False, colour: bool = True) -> str:
    """Describe a thing, such as "a small striped red circle"."""
    words = (thing.size if size else "", thing.texture if texture else "", thing.colour if colour else "", thing.shape)
    text = " ".join(filter(None, words))
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def caption(scene: Scene, rng: np.random.Generator | None = None, *, texture: bool = False) -> str:
    """Write a true caption of a scene.

    Without `rng`: the first two things by colour and shape (and texture, if asked for), in their relation. With it,
    words and things are left out at random, now and then the relation, or all things but one.
    """
    if rng is None:
        return _sentence([phrase(t, texture=texture) for t in scene.things[:2]], scene.relation)
    sized = scene.relation != "inside"
    # [things, 4]: whether to say the size, texture and colour, and, from the third thing on, the thing at all
    said = rng.random((len(scene.things), 4)) < (0.4, 0.4, 0.9, 0.5)
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
    # "and" is symmetric, so either order is true
    return _sentence(phrases[1::-1] if flipped else phrases[:2], "and", others)


def _sentence(first: Sequence[str], relation: str | None, others: Sequence[str] = ()) -> str:
    return " and ".join([f" {relation} ".join(first), *others])


EXCHANGED = {
    "objects": ("texture", "colour", "shape"),
    "colours": ("colour",),
    "textures": ("texture",),
}
"""Attributes that `swapped` exchanges between a scene's first two things, by name of the swap."""


def swapped(scene: Scene, what: str, rng: np.random.Generator) -> Scene:
    """Change a scene so that its caption has the same words in another order, or another relation.

    Parameters
    ----------
    scene : Scene
        Scene of at least two things.
    what : str
        A key of `EXCHANGED`: the first two things exchange these attributes and keep place and size. Or "relation":
        another relation, with all things at new places.
    rng : Generator
        Source of the new relation and places.

    Returns
    -------
    Scene
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
        things = place(rng, [replace(t, diameter=SIZES[t.size]) for t in scene.things], relation)
        if things is not None:
            return replace(scene, things=things, relation=relation)


def wrong_caption(scene: Scene, seed: int) -> tuple[str, str]:
    """Write a true random caption of a scene and a false one that differs a little.

    The false one has words swapped, another relation, or one word that fits nothing in the picture. It names no
    combination of colour and shape in `HELD_OUT`, as training on it would teach that such things are false.
    """
    right, rng = caption(scene, np.random.default_rng(seed)), np.random.default_rng([seed, 1])
    related = f" {scene.relation} " in right
    swaps = ["colours", "colours", "textures", *(["objects", "objects", "relation"] if related else [])]
    changes = ["colour", "shape", "texture", "size"]
    # the same seed leaves out the same words in both captions; a change to a word left out is drawn again
    while True:
        change = str(rng.choice(swaps + changes if len(scene.things) > 1 else changes))
        other = _changed(scene, change, rng) if change in changes else swapped(scene, change, rng)
        wrong = caption(other, np.random.default_rng(seed))
        if wrong != right and not any((t.colour, t.shape) in HELD_OUT for t in other.things):
            return right, wrong


def _changed(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """Change one attribute of one thing, a colour or shape to a value that is nowhere in the scene."""
    vocabulary: dict[str, Collection[str]] = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}
    i = int(rng.integers(len(scene.things)))
    nowhere = name in ("colour", "shape")
    there = {getattr(thing, name) for thing in (scene.things if nowhere else scene.things[i : i + 1])}
    changed: dict[str, Any] = {name: str(rng.choice([w for w in vocabulary[name] if w not in there]))}
    return replace(scene, things=(*scene.things[:i], replace(scene.things[i], **changed), *scene.things[i + 1 :]))
