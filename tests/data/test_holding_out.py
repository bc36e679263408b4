"""What is held out follows from the pictures: groups stay whole, and other images move nothing."""

import numpy as np
import pytest

from hybridclf.data.holding_out import digests, join_groups, pack, split, spread, unpack
from hybridclf.errors import InvalidInputError

CLASSES = ["ant", "bee", "cat"]


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


def held_out(pixels: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, **options: object) -> set[int]:
    """Digests of what is held out, a fifth of every class."""
    groups = np.arange(len(y)) if groups is None else groups
    arguments = {"share": 0.2, "seed": 0, "classes": CLASSES} | options
    digest = digests(pixels)
    return set(digest[split(y, groups, digest, **arguments)[1]].tolist())  # type: ignore[arg-type]


def test_every_class_gives_its_share_and_one_at_least() -> None:
    y = np.repeat([0, 1, 2], [40, 20, 3])
    kept, out = split(y, np.arange(63), digests(images(63)), 0.25, 0, CLASSES)
    assert sorted([*kept, *out]) == list(range(63)) and sorted(kept) == kept.tolist()
    assert np.bincount(y[out]).tolist() == [10, 5, 1]
    again, other = (split(y, np.arange(63), digests(images(63)), 0.25, seed, CLASSES)[1] for seed in (0, 1))
    np.testing.assert_array_equal(again, out)
    assert set(other) != set(out)


def test_a_class_without_enough_images_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="class 'bee' has one image, and at least 2 are needed"):
        split(np.array([0, 0, 1]), np.arange(3), digests(images(3)), 0.1, 0, CLASSES)
    with pytest.raises(InvalidInputError, match=r"class 'bee' has 2 image\(s\), of which 2 would be held out and none"):
        split(np.array([0, 0, 0, 0, 1, 1]), np.arange(6), digests(images(6)), 0.75, 0, CLASSES)


def test_order_and_other_images_move_nothing() -> None:
    pixels, y = images(200), np.repeat([0, 1], 100)
    expected = held_out(pixels, y)
    order = np.random.default_rng(1).permutation(200)
    assert held_out(pixels[order], y[order]) == expected
    more = held_out(np.concatenate([images(1, seed=9), pixels]), np.append(1, y))
    fewer = held_out(np.delete(pixels, 150, axis=0), np.delete(y, 150))
    assert len(more ^ expected) <= 2 and len(fewer ^ expected) <= 2  # at the end of one class's share


def test_groups_stay_whole_and_classes_have_their_share() -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(1, 7, 120)
    groups = np.repeat(np.arange(120), size)
    y = np.repeat(rng.integers(0, 3, 120), size)
    pixels = images(len(y))
    for seed in range(5):
        kept, out = split(y, groups, digests(pixels), 0.2, seed, CLASSES)
        assert not set(groups[kept]) & set(groups[out])
        share = np.bincount(y[out]) / np.bincount(y)
        assert (abs(share - 0.2) < 0.05).all()
        assert (np.diff(groups[out]) != 0).sum() == len(set(groups[out])) - 1  # group by group


def test_a_group_of_several_classes_stays_whole() -> None:
    y, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 3, 4])
    for seed in range(10):
        kept, out = split(y, groups, digests(images(6)), 0.34, seed, CLASSES)
        assert not set(groups[kept]) & set(groups[out])
        assert set(y[kept]) == set(y[out]) == {0, 1}


def test_groups_larger_than_a_share() -> None:
    """The smallest is held out; where there is just one, there is nothing to train on."""
    y, groups = np.repeat([0, 1], [20, 12]), np.repeat([0, 1, 2, 3, 4], [9, 11, 4, 4, 4])
    _, out = split(y, groups, digests(images(32)), 0.1, 0, CLASSES)
    assert np.bincount(groups[out]).tolist()[0] == 9 and len(out) == 13
    with pytest.raises(
        InvalidInputError, match=r"class 'ant' has 20 images in 1 group\(s\), of which none can be held"
    ):
        split(y, np.where(y, groups, 0), digests(images(32)), 0.1, 0, CLASSES)


def test_a_class_with_no_image_is_passed_over() -> None:
    y = np.repeat([0, 2], 10)
    assert np.bincount(y[split(y, np.arange(20), digests(images(20)), 0.2, 0, CLASSES)[1]]).tolist() == [2, 0, 2]


# --- what an earlier training saw -------------------------------------------------------------------------------------


def test_what_was_seen_is_never_held_out() -> None:
    pixels, y = images(200), np.repeat([0, 1], 100)
    out = held_out(pixels, y)
    seen = np.setdiff1d(digests(pixels), np.array(sorted(out), dtype=np.uint32))
    assert held_out(pixels, y, seen=seen) == out == held_out(pixels, y, seen=seen, seed=5)
    added = np.concatenate([pixels, images(30, seed=3)])
    more = held_out(added, np.append(y, np.ones(30, dtype=int)), seen=seen)
    assert not more & set(seen.tolist()) and len(more) == 46
    fewer = np.isin(digests(pixels), sorted(out)[:2], invert=True)  # held out then, and gone now
    assert held_out(pixels[fewer], y[fewer], seen=seen) == set(sorted(out)[2:])


def test_copies_of_what_was_seen_are_not_held_out() -> None:
    pixels, y = images(60), np.repeat([0, 1], 30)
    groups = np.arange(60) % 30  # every image of the one class belongs to one of the other
    seen = digests(pixels)[:20]
    assert not held_out(pixels, y, groups, seen=seen) & set(digests(pixels[groups < 20]).tolist())


def test_too_little_that_was_not_seen() -> None:
    pixels, y = images(200), np.repeat([0, 1], 100)
    seen = np.setdiff1d(digests(pixels), np.array(sorted(held_out(pixels, y)), dtype=np.uint32))
    with pytest.raises(
        InvalidInputError, match=r"60 images should be held out, and only 40 can.*\(validation_fraction, --val\): 0\.2$"
    ):
        held_out(pixels, y, seen=seen, share=0.3)
    with pytest.raises(InvalidInputError, match="of class 'ant' no image can be held out that the earlier model"):
        held_out(pixels, y, seen=digests(pixels)[:100])


# --- the parts --------------------------------------------------------------------------------------------------------


def test_digests_follow_from_pixels() -> None:
    pixels = images(50)
    assert len(np.unique(digests(pixels))) == 50
    np.testing.assert_array_equal(digests(pixels[::-1]), digests(pixels)[::-1])
    changed = pixels.copy()
    changed[7, 0, 0, 0] ^= 1
    assert (digests(changed) != digests(pixels)).tolist() == [i == 7 for i in range(50)]


def test_packed_numbers_are_text() -> None:
    numbers = digests(images(50))
    np.testing.assert_array_equal(unpack(pack(numbers)), np.unique(numbers))
    assert unpack(pack(numbers[:0])).tolist() == []
    with pytest.raises(ValueError, match="base64"):
        unpack("no text of this kind!")


def test_groups_of_both_kinds_are_joined() -> None:
    joined = join_groups(np.array([0, 0, 1, 2, 3, 4]), np.array([0, 1, 1, 2, 3, 2]))
    assert [len(set(joined[list(part)])) for part in ((0, 1, 2), (3, 5), (4,))] == [1, 1, 1]
    assert len(set(joined)) == 3


def test_spread_takes_groups_in_order_that_bring_it_closer_and_then_the_smallest() -> None:
    y, groups, key = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 2, 3]), np.array([1, 1, 0, 2, 3])
    assert spread(y, groups, key, np.array([2, 0]), np.array([4, 1])).tolist() == [2, 3]
    assert spread(y, groups, key, np.array([3, 1]), np.array([4, 1])).tolist() == [2, 0, 1, 4]
    assert spread(y[:2], groups[:2], key[:2], np.array([1]), np.array([2])).tolist() == [0, 1]  # closer by none
    assert spread(y[:2], groups[:2], key[:2], np.array([1]), np.array([1])).tolist() == []
