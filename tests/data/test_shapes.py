"""The world of shapes: what is drawn is what the caption says."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

from hybridclf.data.shapes import (
    COLOURS,
    EXCHANGED,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    caption,
    draw,
    phrase,
    scenes,
    swapped,
    wrong_caption,
)


@pytest.fixture(scope="module")
def drawn():
    return scenes(300, random_state=5)


def words_of(text):
    return text.replace(",", "").split()


def test_scenes_depend_on_the_seed_alone():
    assert scenes(5, random_state=3) == scenes(5, random_state=3) != scenes(5, random_state=4)


def test_relations_hold(drawn):
    for scene in drawn:
        first, *others = scene.things
        if scene.relation == "left of":
            assert others[0].x - first.x > 2 * abs(others[0].y - first.y)
        elif scene.relation == "above":
            assert others[0].y - first.y > 2 * abs(others[0].x - first.x)
        elif scene.relation == "inside":
            assert (first.x, first.y) == (others[0].x, others[0].y)
            assert first.diameter < others[0].diameter / 2
        else:
            assert not others


def test_things_lie_within_the_picture_and_apart(drawn):
    for scene in drawn:
        for thing in scene.things:
            assert thing.diameter / 2 <= thing.x <= 1 - thing.diameter / 2
            assert thing.diameter / 2 <= thing.y <= 1 - thing.diameter / 2
        for a, b in combinations(scene.things[scene.relation == "inside" :], 2):
            assert max(abs(a.x - b.x), abs(a.y - b.y)) > (a.diameter + b.diameter) / 2


def test_things_differ_in_colour_and_shape(drawn):
    for scene in drawn:
        assert len({t.colour for t in scene.things}) == len({t.shape for t in scene.things}) == len(scene.things)


def test_held_out_combinations(drawn):
    assert len(HELD_OUT) == len(COLOURS) == len({colour for colour, _ in HELD_OUT})
    assert {shape for _, shape in HELD_OUT} == set(SHAPES)
    assert not any((t.colour, t.shape) in HELD_OUT for s in drawn for t in s.things)
    held = scenes(50, random_state=0, things=(1, 2, 3), held_out=True)
    assert all((t.colour, t.shape) in HELD_OUT for s in held for t in s.things[:2])


def test_every_word_comes_up(drawn):
    said = {w for i, s in enumerate(drawn) for w in words_of(caption(s, np.random.default_rng(i)))}
    assert said >= {*COLOURS, *SHAPES, *SIZES, *TEXTURES, *" ".join(RELATIONS).split()}


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"ring", "crescent"}))
def test_colour_at_the_centre_and_ground_outside(shape, size):
    thing = Thing("large", "plain", "blue", shape, x=0.5, y=0.5, diameter=0.5)
    picture = draw([Scene((thing,), ground=(0.2, 0.2))], size)[0]
    np.testing.assert_allclose(picture[size // 2, size // 2], np.multiply(COLOURS["blue"], 255), atol=1)
    np.testing.assert_allclose(picture[[0, 0, -1, -1], [0, -1, 0, -1]], 51, atol=1)


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ("circle", np.pi),
        ("square", 1.76**2),
        ("diamond", 2 * 1.05**2),
        ("ring", np.pi * (1 - 0.52**2)),
        ("cross", 4 * 2 * 0.34 - 4 * 0.34**2),
        ("star", 10 * 0.5 * 0.45 * np.sin(np.pi / 5)),
    ],
)
def test_areas(shape, share):
    """Against the area by geometry, in units of half a diameter squared."""
    bright, size = Thing("large", "plain", "white", shape, diameter=0.8), 256
    picture = draw([Scene((bright,), ground=(0.0, 0.0))], size)[0, :, :, 0] / 255
    assert picture.mean() == pytest.approx(share * 0.4**2, rel=0.02)


def test_pictures_do_not_depend_on_their_companions(drawn):
    alone = np.concatenate([draw([s]) for s in drawn[:20]])
    np.testing.assert_array_equal(alone, draw(drawn[:20]))
    assert draw([]).shape == (0, 64, 64, 3)


def test_textures_differ_and_the_inner_thing_is_on_top():
    inner = Thing("small", "plain", "red", "circle", diameter=0.2)
    outer = [Thing("large", texture, "white", "square", diameter=0.6) for texture in TEXTURES]
    pictures = draw([Scene((inner, o), "inside") for o in outer])
    assert all(np.abs(a.astype(int) - b).mean() > 5 for a, b in combinations(pictures, 2))
    np.testing.assert_allclose(pictures[:, 32, 32], np.tile(np.multiply(COLOURS["red"], 255), (4, 1)), atol=1)


# --- words ------------------------------------------------------------------------------------------------------------


def test_phrases():
    thing = Thing("small", "striped", "orange", "ring")
    assert phrase(thing) == "an orange ring"
    assert phrase(thing, size=True, texture=True) == "a small striped orange ring"
    assert phrase(thing, colour=False) == "a ring"


@pytest.mark.parametrize("what", [*EXCHANGED, "relation"])
def test_swaps_keep_the_words_or_change_the_relation_alone(drawn, what):
    rng = np.random.default_rng(0)
    for scene in [s for s in drawn if len(s.things) > 1][:50]:
        ours, theirs = (caption(s, texture=True) for s in (scene, swapped(scene, what, rng)))
        if what == "relation":
            ours, theirs = (t.replace(f" {r} ", " ") for t in (ours, theirs) for r in RELATIONS if f" {r} " in t)
            assert ours == theirs
        else:
            assert sorted(words_of(ours.replace(" an ", " a "))[1:]) == sorted(
                words_of(theirs.replace(" an ", " a "))[1:]
            )


def test_swapped_twice_is_the_same(drawn):
    rng = np.random.default_rng(0)
    for scene in [s for s in drawn if len(s.things) > 1][:20]:
        for what in EXCHANGED:
            assert swapped(swapped(scene, what, rng), what, rng) == scene


def is_true(text, scene):
    """Whether a caption is true of a scene, by reading it: an oracle that knows nothing of how it was made."""
    parts = [p for p in text.split(" and ")]
    relation = next((r for r in RELATIONS if f" {r} " in parts[0]), None)
    named = [*(parts[0].split(f" {relation} ") if relation else parts[:1]), *parts[1:]]
    fitting = [{i for i, t in enumerate(scene.things) if fits(words_of(p), t, scene)} for p in named]
    if not all(fitting):
        return False
    return relation is None or (relation == scene.relation and 0 in fitting[0] and 1 in fitting[1])


def fits(words, thing, scene):
    inside = scene.relation == "inside"
    return words[-1] == thing.shape and all(
        w in (thing.texture, thing.colour, thing.shape) or (w == thing.size and not inside) for w in words[1:]
    )


def test_captions_are_true_and_wrong_ones_false(drawn):
    for seed, scene in enumerate(drawn):
        right, wrong = wrong_caption(scene, seed)
        assert is_true(right, scene), (right, scene)
        assert not is_true(wrong, scene), (right, wrong, scene)
        assert is_true(caption(scene), scene)


def test_wrong_captions_name_no_held_out_combination(drawn):
    for seed, scene in enumerate(drawn):
        words = words_of(wrong_caption(scene, seed)[1])
        assert not any((a, b) in HELD_OUT for a, b in pairwise(words))


def test_light_changes_the_colour_only():
    thing = Thing("large", "plain", "white", "circle")
    dim, bright = draw([Scene((replace(thing, light=v),)) for v in (0.5, 1.0)])
    assert dim[32, 32].tolist() == [128, 128, 128] and bright[32, 32].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(dim[0], bright[0])
