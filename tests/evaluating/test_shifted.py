"""Reading images of another distribution: their groups and textures, and what the model has seen left out."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.data.holding_out import digests
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.sample import TrainedOn
from hybridclf.evaluating.shifted import read_shifted


def classifier(shape: tuple[int, ...] | None = (4, 4, 3)) -> HybridClassifier:
    """One that knows ants, bees and cows, and whose tiers resize images to 8 pixels where it takes any size."""
    clf = HybridClassifier.__new__(HybridClassifier)
    clf.classes_, clf.image_shape_ = np.array(["ant", "bee", "cow"]), shape
    clf.proposer_, clf.denoiser_ = SimpleNamespace(feature_side=8), SimpleNamespace(resolution=6)
    return clf


def test_columns_of_a_table(tmp_path: Path) -> None:
    """A CSV of ants and bees, which have each other's texture but for one."""
    lines = ["path,label,group,texture"]
    for i, label in enumerate(["ant", "bee"] * 12):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label},{'dark' if i < 12 else ''},{'bee' if label == 'ant' or i == 1 else 'ant'}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    clf = classifier()
    found = read_shifted(tmp_path / "data.csv", clf)
    assert found.y.tolist() == ["ant", "bee"] * 12 and found.groups is not None
    assert list(found.groups) == ["dark"] * 12 + [None] * 12
    assert found.textures == ["bee", "bee", *["bee", "ant"] * 11]
    seen = digests(np.stack([np.full((4, 4, 3), (10 * i, 0, 0), np.uint8) for i in (0, 1, 23)]))
    unseen = read_shifted(tmp_path / "data.csv", clf, seen=TrainedOn(frozenset(seen.tolist()), (4, 4, 3)))
    assert (
        unseen.y.tolist() == ["ant", "bee"] * 10 + ["ant"] and list(unseen.groups or ()) == ["dark"] * 10 + [None] * 11
    )
    assert unseen.textures == [*["bee", "ant"] * 10, "bee"]
    assert "3 images in" in unseen.notes[0] and "the model was trained or calibrated on them" in unseen.notes[0]
    everything = digests(np.stack([np.full((4, 4, 3), (10 * i, 0, 0), np.uint8) for i in range(24)]))
    with pytest.raises(InvalidInputError, match="trained or calibrated on all of these images"):
        read_shifted(tmp_path / "data.csv", clf, seen=TrainedOn(frozenset(everything.tolist()), (4, 4, 3)))
    (tmp_path / "plain.csv").write_text("\n".join(",".join(line.split(",")[:2]) for line in lines))
    plain = read_shifted(tmp_path / "plain.csv", clf, n_images=12)
    assert plain.groups is None and plain.textures is None and "A sample of 12 of the 24" in plain.notes[0]


def test_images_that_belong_together(tmp_path: Path) -> None:
    """By the column that is named, beside those of the column "group", and of the images that could be read alone."""
    lines = ["path,label,group,film"]
    for i, label in enumerate(["ant", "bee"] * 12):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label},{'dark' if i < 12 else ''},{i // 3 or ''}")
    (tmp_path / "5.png").write_text("no image")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    found = read_shifted(tmp_path / "data.csv", classifier(), group="film")
    assert found.units is not None and found.groups is not None
    assert found.units.tolist() == [0, 1, 2, 3, 3, *np.repeat(np.arange(4, 10), 3).tolist()]  # gaps are each alone
    assert list(found.groups) == ["dark"] * 11 + [None] * 12 and len(found.notes) == 1
    assert read_shifted(tmp_path / "data.csv", classifier()).units is None
    (tmp_path / "plain.csv").write_text("\n".join(",".join(line.split(",")[:2]) for line in lines))
    plain = read_shifted(tmp_path / "plain.csv", classifier(), group="film")
    assert plain.units is None and plain.notes[-1].endswith("has no column 'film': each of its images counts as alone.")


def test_large_images_are_averaged_down_for_tiers_of_any_size(tmp_path: Path) -> None:
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (100, 75)).save(tmp_path / label / "0.png")
    found = read_shifted(tmp_path, classifier(None))
    assert [image.size for image in found.images] == [(34, 25)] * 2
