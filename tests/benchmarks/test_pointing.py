"""Boxes and changes of the pointing game."""

import numpy as np

from benchmarks.pointing import box, changed
from hybridclf.data.shapes import Thing, scenes


def test_a_box_is_where_the_thing_is() -> None:
    rows, columns = box(Thing("large", "plain", "red", "ring", x=0.25, y=0.75, diameter=0.25), 64)
    assert (rows, columns) == (slice(40, 56), slice(8, 24))
    rows, columns = box(Thing("large", "plain", "red", "ring", x=0.05, y=1.0, diameter=0.25), 8)
    assert (rows, columns) == (slice(7, 8), slice(0, 2))


def test_one_thing_changes_and_to_what_is_not_there() -> None:
    rng = np.random.default_rng(0)
    for scene in scenes(20, random_state=1, things=(2,)):
        for name in ("colour", "shape", "texture"):
            other = changed(scene, 1, name, rng)
            assert other.things[0] == scene.things[0] and other.things[1] != scene.things[1]
            assert getattr(other.things[1], name) not in {getattr(thing, name) for thing in scene.things}
