"""Corrupted copies of images, alone and in a report."""

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from hybridclf import HybridClassifier, InvalidInputError, evaluate
from hybridclf.data.arrays import Items
from hybridclf.evaluating.corruptions import FAMILIES, SEVERITIES, STRENGTHS, corrupted, corrupted_copies

pytestmark = pytest.mark.skipif(find_spec("kornia") is None, reason="no kornia here")


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Pieces of scikit-learn's two photographs, 32 pixels a side."""
    photos = [load_sample_image(name)[::4, ::4] for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + 32, x : x + 32] for photo in photos for y in (20, 60) for x in (20, 80)])


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_corruption_grows_with_severity(name: str, photographs: np.ndarray) -> None:
    drawn = [corrupted(photographs, name, severity) for severity in SEVERITIES]
    assert all(d.shape == photographs.shape and d.dtype == np.uint8 for d in drawn)
    away = [np.abs(d.astype(float) - photographs).mean() for d in drawn]
    assert 0 < away[0] < away[-1] and (np.diff(away) > 0).all(), away
    assert away[-1] < 100, "nothing can be seen any more"


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_seed_decides_a_corruption(name: str, photographs: np.ndarray) -> None:
    np.testing.assert_array_equal(corrupted(photographs, name, 3), corrupted(photographs, name, 3))


def test_families_name_every_corruption() -> None:
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(STRENGTHS)


def test_copies_keep_the_form_of_the_images(photographs: np.ndarray, make_study: Any) -> None:
    pictures = [Image.fromarray(p) for p in photographs]
    for images, top in ((photographs, 255.0), (pictures, 255.0), (photographs[..., :1] / 300, 0.85)):
        copies = corrupted_copies(make_study(images, (0.0, top)))
        assert [own.name for own in copies] == [f"corrupted, severity {s}" for s in SEVERITIES]
        for own in copies:
            assert own.groups == list(STRENGTHS)
            assert [np.shape(image) for image in own.images] == [np.shape(image) for image in images]
        pixels = [np.stack([np.asarray(image, dtype=float) for image in own.images]) for own in copies]
        assert all((p >= 0).all() for p in pixels) and all(p.max() <= top + 1e-9 for p in pixels)
        given = np.stack([np.asarray(image, dtype=float) for image in images])
        away = [np.abs(p - given).mean() for p in pixels]
        assert (np.diff(away) > 0).all()


@pytest.fixture
def make_study() -> Any:
    """`make_study(images, pixel_range)`: as much of a study as copies are made of, all images for the test."""

    def make(images: Any, pixel_range: tuple[float, float]) -> Any:
        n = len(images)
        return SimpleNamespace(
            clf=SimpleNamespace(pixel_range_=pixel_range, classes_=np.array(["a", "b"])),
            test=_Test(np.arange(n) % 2),
            test_items=Items(images, images),
            examples=lambda wanted, most: np.arange(n)[:most].tolist(),
        )

    return make


class _Test:
    def __init__(self, y: np.ndarray) -> None:
        self.y, self.groups = y, None

    def __len__(self) -> int:
        return len(self.y)


@pytest.mark.slow
def test_a_report_by_severity() -> None:
    digits = load_digits()
    clf = HybridClassifier.from_pretrained("digits")
    report = evaluate(clf, digits.images[:120], digits.target[:120], trials=4, corrupt=True)
    by_source = {row.source: row for row in report.shifts if row.method == "tier 1"}
    assert list(by_source) == ["as given", *(f"corrupted, severity {s}" for s in SEVERITIES)]
    worst = by_source["corrupted, severity 5"]
    assert worst.accuracy.value < by_source["as given"].accuracy.value
    assert worst.worst_group is not None and worst.worst_group.group in STRENGTHS


def test_vectors_are_refused(make_study: Any) -> None:
    with pytest.raises(InvalidInputError, match="vectors cannot be corrupted"):
        corrupted_copies(make_study(np.zeros((4, 7)), (0.0, 1.0)))
