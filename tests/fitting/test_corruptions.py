"""Corruptions: within the range of the pixels, decided by the generator, and each what its name says."""

import numpy as np
import pytest

from hybridclf.fitting.corruptions import CORRUPTIONS, corrupt
from hybridclf.fitting.drift import looks_of

IMAGES = np.random.default_rng(0).integers(60, 180, (40, 8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_changes_every_image_within_the_range_and_repeats(kind: str) -> None:
    made = [corrupt(IMAGES, kind, 0.0, 255.0, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert made[0].min() >= 0 and made[0].max() <= 255
    assert (np.abs(made[0] - IMAGES).mean(axis=(1, 2, 3)) > 1).all()
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_does_not_depend_on_the_scale_of_the_pixels(kind: str) -> None:
    ours = corrupt(IMAGES / 255, kind, 0.0, 1.0, np.random.default_rng(0))
    reference = corrupt(IMAGES, kind, 0.0, 255.0, np.random.default_rng(0)) / 255
    np.testing.assert_allclose(ours, reference, atol=1e-12)


def test_noise_adds_grain_blur_takes_it_contrast_pales_and_brightness_moves_the_mean() -> None:
    clean = looks_of(IMAGES, 0.0, 255.0)
    looks = {k: looks_of(corrupt(IMAGES, k, 0.0, 255.0, np.random.default_rng(0)), 0.0, 255.0) for k in CORRUPTIONS}
    assert (looks["blur"][:, 3] < clean[:, 3]).all()
    assert (looks["contrast"][:, 1] < clean[:, 1]).all()
    assert (np.abs(looks["brightness"] - clean)[:, 0] > 0.09).all()
    flat = np.full_like(IMAGES, 120)
    assert (looks_of(corrupt(flat, "noise", 0.0, 255.0, np.random.default_rng(0)), 0.0, 255.0)[:, 3] > -3.5).all()
