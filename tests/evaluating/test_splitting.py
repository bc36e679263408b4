"""Splits: every class gives its share, copies and groups are on one side."""

import numpy as np
import pytest
from PIL import Image

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.splitting import split_off

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


def share(images: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, mirror: bool = False) -> np.ndarray:
    groups = np.arange(len(y)) if groups is None else groups
    return split_off(images, y, groups, 0.3, 0, ["a", "b"], mirror, uses=("test on", "choose settings on"))[0]


def test_the_share_to_calibrate_on_has_its_part_of_every_class() -> None:
    y = np.arange(40) % 2
    chosen = share(PICTURES, y)
    assert np.bincount(y[chosen]).tolist() == [6, 6]
    listed = share([Image.fromarray(p) for p in PICTURES], y)  # type: ignore[arg-type]
    assert np.bincount(y[listed]).tolist() == [6, 6]
    assert share(PICTURES.reshape(40, -1).astype(float), y).sum() == 12


def test_the_only_image_of_a_class_is_reported_on() -> None:
    y = np.array([2, *[0, 1] * 19, 3])
    chosen = share(PICTURES, y)
    assert chosen.sum() == 12 and not chosen[0] and not chosen[-1]
    other = np.flatnonzero(chosen)[0]
    together = share(PICTURES, y, np.where(np.arange(40) == other, 0, np.arange(40)))  # a group of the first and that
    assert together[0] == together[other]
    with pytest.raises(InvalidInputError, match="one to test on and one to choose settings on; add another"):
        share(PICTURES[:2], np.array([0, 1]))


def test_copies_and_groups_are_on_one_side() -> None:
    y, groups = np.arange(40) % 2, np.arange(40) // 4
    chosen = share(PICTURES, y, groups)
    assert 0 < chosen.sum() < 40 and all(len(set(chosen[groups == g].tolist())) == 1 for g in range(10))
    smooth = np.stack(
        [np.asarray(Image.fromarray(p[:3, :3]).resize((24, 24), Image.Resampling.BICUBIC)) for p in PICTURES[:20]]
    )
    twice = np.concatenate(
        [smooth, np.clip(smooth.astype(int) + RNG.integers(-3, 4, smooth.shape), 0, 255).astype(np.uint8)]
    )
    chosen = share(twice, np.tile(np.arange(20) % 2, 2))
    np.testing.assert_array_equal(chosen[:20], chosen[20:])
    assert 0 < chosen.sum() < 40
    mirrored = np.concatenate([smooth, smooth[:, :, ::-1]])
    chosen = share(mirrored, np.tile(np.arange(20) % 2, 2), mirror=True)
    np.testing.assert_array_equal(chosen[:20], chosen[20:])
