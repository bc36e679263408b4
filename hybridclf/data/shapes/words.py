"""Captions of scenes, true and false."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .scenes import Scene, Thing, place
from .vocabulary import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, TEXTURES

__all__ = ["EXCHANGED", "caption", "phrase", "swapped", "wrong_caption"]


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
        things = place(rng, [replace(t, diameter=SIZES[t.size]) for t in scene.things], relation)
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
    vocabulary: dict[str, Collection[str]] = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}
    i = int(rng.integers(len(scene.things)))
    nowhere = name in ("colour", "shape")
    there = {getattr(thing, name) for thing in (scene.things if nowhere else scene.things[i : i + 1])}
    changed: dict[str, Any] = {name: str(rng.choice([w for w in vocabulary[name] if w not in there]))}
    return replace(scene, things=(*scene.things[:i], replace(scene.things[i], **changed), *scene.things[i + 1 :]))
