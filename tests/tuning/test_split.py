"""The split of a tuning: copies and groups are on one side, and what tier 1 was trained on is not held out."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf import InvalidInputError
from hybridclf.data.holding_out import unpack
from hybridclf.evaluating.sample import TrainedOn
from hybridclf.tuning.questions import Questions
from hybridclf.tuning.settings import TuneSettings
from hybridclf.tuning.split import Digests, Split, split_images

LABELS = ["ant", "bee"]
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
Y = np.arange(40) % 2


def questions(images: Any, y: np.ndarray = Y) -> Questions:
    names = [*LABELS, "cat"]
    return Questions(images, names, [[int(c), int(c == 0)] for c in y], [], np.array(names)[y], None)  # type: ignore[arg-type]


def split(
    images: Any = PICTURES, y: np.ndarray = Y, groups: Any = None, seen: Any = (), share: float = 0.5, seed: int = 0
) -> Split:
    mask = np.isin(np.arange(len(y)), seen)
    return split_images(questions(images, y), groups, TuneSettings(validation_fraction=share, seed=seed), mask)


def held_out(found: Split) -> np.ndarray:
    return np.concatenate([found.fitted, found.measured])


def test_every_class_gives_its_share_and_every_image_has_one_use() -> None:
    found = split(share=0.3)
    assert sorted(np.concatenate(found[:3]).tolist()) == list(range(40))
    assert np.bincount(Y[held_out(found)]).tolist() == [6, 6] and len(found.measured) == 6
    listed = split([Image.fromarray(picture) for picture in PICTURES], share=0.3)
    assert len(held_out(listed)) == 12
    assert np.bincount(Y[held_out(split(PICTURES / 255.0, share=0.3))]).tolist() == [6, 6]
    assert set(held_out(split(seed=1, share=0.3))) != set(held_out(found))


def test_copies_and_groups_are_on_one_side_of_the_measurement() -> None:
    twice = np.repeat(PICTURES[:20], 2, axis=0)
    for found in (split(twice, np.arange(40) // 2 % 2), split(groups=[f"film {i // 2}" for i in range(40)])):
        sides = [set(own // 2) for own in found[:3]]
        assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert len(np.unique(found.groups)) == 20


def test_slightly_noisy_copies_are_held_out_together() -> None:
    smooth = [Image.fromarray(p[:3, :3]).resize((32, 32), Image.Resampling.BICUBIC) for p in PICTURES[:20]]
    noisy = [Image.fromarray(np.clip(np.asarray(p).astype(int) + 2, 0, 255).astype(np.uint8)) for p in smooth]
    found = split([*smooth, *noisy], np.tile(Y[:20], 2))
    assert not set(found.training % 20) & set(held_out(found) % 20)


def test_pictures_that_all_look_alike_are_split_nevertheless() -> None:
    rng = np.random.default_rng(0)
    walls = [Image.fromarray(rng.integers(120, 124, (32, 32, 3), dtype=np.uint8)) for _ in Y]
    assert len(held_out(split(walls))) == 20


def test_vectors_are_split() -> None:
    assert len(held_out(split(np.random.default_rng(0).normal(size=(40, 5))))) == 20


def test_the_only_image_of_a_class_is_trained_on() -> None:
    y = np.append(Y[:-1], 2)
    assert 39 in split(y=y).training
    own = split(y=y)
    groups = np.where(np.arange(40) == own.measured[0], 39, np.arange(40))
    assert 39 not in split(y=y, groups=groups).training  # its group is held out
    assert 39 in split(y=y, groups=groups, seen=[39]).training


# --- what tier 1 was trained on ---------------------------------------------------------------------------------------


def test_what_tier_1_was_trained_on_is_not_held_out_nor_its_copies_and_groups() -> None:
    images, groups = PICTURES.copy(), np.arange(40)
    images[30], images[32] = images[0], images[2]
    groups[[21, 23, 25]] = 1, 3, 5
    barred = {*range(10), 30, 32, 21, 23, 25}
    for seed in range(5):
        found = split(images, groups=groups, seen=range(10), share=0.3, seed=seed)
        assert barred <= set(found.training.tolist()) and len(held_out(found)) == 12


def test_all_that_is_left_of_a_class_is_held_out_if_that_is_less_than_the_share() -> None:
    found = split(seen=range(32))
    assert sorted(held_out(found)) == list(range(32, 40)) and len(found.measured) == 4
    seen = np.flatnonzero(Y == 0)[:17]  # 3 of one class are left, and all 20 of the other
    assert np.bincount(Y[held_out(split(seen=seen))]).tolist() == [3, 10]


def test_near_copies_of_what_tier_1_was_trained_on_are_never_held_out() -> None:
    """Class 0 has nothing else, class 1 has others."""
    smooth = [Image.fromarray(p[:3, :3]).resize((32, 32), Image.Resampling.BICUBIC) for p in PICTURES[:30]]
    noisy = [Image.fromarray(np.clip(np.asarray(p).astype(int) + 2, 0, 255).astype(np.uint8)) for p in smooth[:20]]
    y = np.array([0] * 10 + [1] * 20 + [0] * 10 + [1] * 10)
    with pytest.raises(InvalidInputError, match="of class 'ant' no image can be held out"):
        split([*smooth, *noisy], y, seen=range(20))
    others = split([*smooth[10:], *noisy[10:]], y[y == 1], seen=range(10), share=0.9)  # and ten copies
    assert set(held_out(others)) <= set(range(10, 20))


def test_near_copies_are_on_one_side_of_the_measurement() -> None:
    smooth = [Image.fromarray(p[:3, :3]).resize((32, 32), Image.Resampling.BICUBIC) for p in PICTURES[:20]]
    noisy = [Image.fromarray(np.clip(np.asarray(p).astype(int) + 2, 0, 255).astype(np.uint8)) for p in smooth]
    found = split([*smooth, *noisy], np.tile(Y[:20], 2))
    assert not set(found.fitted % 20) & set(found.measured % 20)
    assert len(np.unique(found.groups)) == 20


def test_too_little_that_tier_1_was_not_trained_on() -> None:
    with pytest.raises(InvalidInputError, match=r"of class 'ant' no image can be held out .* nor on a copy of it; add"):
        split(seen=range(40))
    with pytest.raises(InvalidInputError, match="of class 'bee' no image can be held out"):
        split(seen=np.flatnonzero(Y == 1))
    with pytest.raises(
        InvalidInputError, match="40 images, 38 of which tier 1 was trained on, are too few to hold out"
    ):
        split(groups=np.minimum(np.arange(40), 38), seen=range(38))


def test_digests_tell_what_was_seen_and_are_logged_by_use() -> None:
    own = np.arange(100, 140, dtype=np.uint32)
    digests = Digests(own, TrainedOn(frozenset({7, 100, 103}), (8, 8, 3)))
    assert np.flatnonzero(digests.are_seen).tolist() == [0, 3]
    found = split(seen=np.flatnonzero(digests.are_seen))
    logged = digests.entries(found)
    assert unpack(logged["trained_on"]).tolist() == [7, *own[found.training]]
    assert unpack(logged["fitted_on"]).tolist() == sorted(own[found.fitted])
    assert logged["hashed_shape"] == (8, 8, 3)
    assert not Digests(own, TrainedOn(frozenset(), None)).are_seen.any()


# --- what a split says of itself --------------------------------------------------------------------------------------


def test_a_digest_is_of_positions_and_groups() -> None:
    found = split()
    assert found.digest == split().digest
    others = [split(seed=1), split(seen=[int(found.fitted[0])]), found._replace(groups=found.groups // 2)]
    assert len({found.digest, *(other.digest for other in others)}) == 4


def test_groups_of_images_that_are_alone_are_none() -> None:
    found = Split(np.arange(0), np.arange(0), np.arange(0), np.array([0, 1, 1, 2]))
    assert found.groups_of(np.array([0, 1, 3])) is None
    shared = found.groups_of(np.array([1, 2, 3]))
    assert shared is not None and shared.tolist() == [1, 1, 2]
