"""Overlapping crops of photographs, and what is none."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hybridclf.data.overlaps import overlapping

CHINA, FLOWER = load_sample_images().images


def crops(photo: np.ndarray, corners: list[tuple[int, int]], size: int = 64, side: int = 32) -> np.ndarray:
    """Crops of that many pixels a side at corners (row, column), averaged down."""
    images = [Image.fromarray(photo[y : y + size, x : x + size]) for y, x in corners]
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BOX)) for image in images])


GRID = [(y, x) for y in range(100, 300, 70) for x in range(40, 520, 70)]
"""Corners of crops that do not overlap."""


@pytest.mark.parametrize("shift", [(0, 24), (20, 9), (-13, 17)])
def test_crops_that_share_half_are_found(shift: tuple[int, int]) -> None:
    first = crops(CHINA, GRID)
    second = crops(CHINA, [(y + shift[0], x + shift[1]) for y, x in GRID])
    pairs = overlapping(first, second)
    y, x = (np.array(GRID)[pairs[:, 1]] + shift - np.array(GRID)[pairs[:, 0]]).T
    right = (abs(y) < 64) & (abs(x) < 64)  # with the same crop, shifted, or with a neighbour that overlaps, too
    assert right.sum() >= len(GRID) / 3 and (~right).sum() <= 1  # the roof has parts that are alike


def test_a_second_exposure_is_found() -> None:
    """Brighter, noisy and shifted by a fraction of a pixel."""
    first = crops(CHINA, GRID)
    second = crops(CHINA, [(y, x + 23) for y, x in GRID]) * 0.8 + 40
    second = (second + np.random.default_rng(0).normal(0, 4, second.shape)).clip(0, 255).astype(np.uint8)
    assert len(overlapping(first, second)) >= len(GRID) / 5


def test_other_photographs_do_not_overlap() -> None:
    assert overlapping(crops(CHINA, GRID), crops(FLOWER, GRID)).tolist() == []
    apart = [(y, x + 64) for y, x in GRID[::2]]
    assert overlapping(crops(CHINA, GRID[::4]), crops(FLOWER, apart)).tolist() == []


def test_copies_are_none() -> None:
    """They are what `duplicate_groups` finds."""
    first = crops(CHINA, GRID)
    assert overlapping(first, first).tolist() == []
    assert overlapping(first, crops(CHINA, [(y + 2, x) for y, x in GRID])).tolist() == []


@pytest.mark.parametrize("side", [1, 8, 9, 16])
def test_small_and_flat_images_have_no_points(side: int) -> None:
    flat = np.full((4, side, side, 3), 90, dtype=np.uint8)
    assert overlapping(flat, flat).shape == (0, 2)
    assert overlapping(crops(CHINA, GRID[:3], side=8), crops(CHINA, GRID[:3], side=8)).shape == (0, 2)
    assert overlapping(flat[:0], flat).shape == (0, 2)


def test_the_answer_is_the_same_in_any_order() -> None:
    first, second = crops(CHINA, GRID), crops(CHINA, [(y, x + 24) for y, x in GRID])
    pairs = {tuple(pair) for pair in overlapping(first, second).tolist()}
    order = np.random.default_rng(0).permutation(len(GRID))
    again = {(int(order[i]), j) for i, j in overlapping(first[order], second).tolist()}
    assert len(pairs & again) >= 0.8 * len(pairs | again)  # principal axes are equal up to rounding
