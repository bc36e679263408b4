"""Copies of a picture are told from pictures that look alike."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from hybridclf.data.datasets import load_labelled
from hybridclf.data.duplicates import duplicate_groups

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def tiles(size: int) -> np.ndarray:
    """Distinct pictures uint8 `[n, size, size, 3]`, cut from two photographs."""
    found = []
    for photograph in load_sample_images().images:
        for y in range(0, 420, 60):
            found += [photograph[y : y + 60, x : x + 60] for x in range(0, 600, 60)]
    return np.stack([resized(tile, size) for tile in found])


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(picture + rng.normal(0, 5, picture.shape), 0, 255).round().astype(np.uint8)


def moved(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.pad(picture, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]


CHANGES: dict[str, tuple[Change, float]] = {
    "none": (lambda picture, rng: picture.copy(), 1.0),
    "saved as JPEG": (lambda picture, rng: jpeg(picture, 85), 0.98),
    "noise": (noisy, 0.95),
    "smaller and larger again": (
        lambda picture, rng: resized(resized(picture, len(picture) * 3 // 4), len(picture)),
        0.98,
    ),
    "mirrored": (lambda picture, rng: picture[:, ::-1], 1.0),
    "mirrored and noisy": (lambda picture, rng: noisy(picture[:, ::-1], rng), 0.95),
    "cropped by a pixel": (lambda picture, rng: resized(picture[1:, :-1], len(picture)), 0.8),
    "moved by a pixel": (moved, 0.5),
}
"""What is done to a picture, and the share of the copies that must be found."""


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(change: str, size: int) -> None:
    rng, originals = np.random.default_rng(0), tiles(size)
    make, share = CHANGES[change]
    copies = np.stack([make(picture, rng) for picture in originals])
    groups = duplicate_groups(np.concatenate([originals, copies]))
    n = len(originals)
    assert (groups[:n] == groups[n:]).mean() >= share
    assert len(np.unique(groups[:n])) >= 0.98 * n


def test_mirrored_copies_count_where_a_mirrored_picture_shows_the_same() -> None:
    originals = tiles(32)[:40]
    both = np.concatenate([originals, originals[:, :, ::-1]])
    assert len(np.unique(duplicate_groups(both, mirror=False))) >= 79


def test_groups_are_connected_and_numbered_by_their_first_images() -> None:
    """A film of small steps is one group, though its ends differ."""
    photograph = load_sample_images().images[0]
    film = np.stack([resized(photograph[200:296, x : x + 96], 32) for x in range(30)])
    others = tiles(32)[70:90]
    groups = duplicate_groups(np.concatenate([others[:1], film, others[1:]]))
    assert groups[0] == 0 and set(groups[1:31]) == {1} and groups[31] == 2
    assert len(np.unique(groups)) == len(others) + 1
    assert len(np.unique(duplicate_groups(film[[0, -1]]))) == 2
    order = np.random.default_rng(0).permutation(len(film))
    assert set(duplicate_groups(film[order])) == {0}


def test_digits_that_look_alike_are_no_copies() -> None:
    images = load_digits().images * 255 / 16
    groups = duplicate_groups(np.concatenate([images, images[:200]]), mirror=False)
    n = len(images)
    np.testing.assert_array_equal(groups[:200], groups[n:])
    assert len(np.unique(groups)) >= 0.99 * n


def test_flat_and_dark_pictures() -> None:
    """The same colour is the same picture, and another is not; noise has no weight of its own where all is dark."""
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 0, 5, 40, 200, 200)])
    assert duplicate_groups(flat).tolist() == [0, 0, 1, 2, 3, 3]
    dark = tiles(32)[:30] // 8
    rng = np.random.default_rng(0)
    grainy = np.clip(dark + rng.normal(0, 1, dark.shape), 0, 255).astype(np.uint8)
    groups = duplicate_groups(np.concatenate([dark, grainy]))
    assert (groups[:30] == groups[30:]).all()


@pytest.mark.parametrize(
    "shape", [(20, 8, 8, 3), (20, 28, 28), (20, 40, 24, 1), (20, 1, 1, 3), (1, 32, 32, 3), (0, 32, 32, 3)]
)
def test_pictures_of_any_shape(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    twice = np.concatenate([images, images])
    groups = duplicate_groups(twice)
    np.testing.assert_array_equal(groups[: len(images)], groups[len(images) :])
    assert groups.shape == (len(twice),)


def test_shared_cifar10(shared_data: Path) -> None:
    """Among 5,000 test images few are near copies, and none of another class."""
    found = load_labelled(shared_data / "cifar10-test.parquet", 32)
    groups = duplicate_groups(found.pixels)
    n_groups = len(np.unique(groups))
    assert 0.995 * len(groups) <= n_groups < len(groups)
    assert len(np.unique(np.stack([groups, found.y]), axis=1).T) == n_groups
