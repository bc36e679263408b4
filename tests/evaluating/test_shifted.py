"""Reading images of another distribution: their groups and textures, and what the model has seen left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.data.holding_out import digests
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.sample import TrainedOn
from hybridclf.evaluating.shifted import read_shifted


def test_columns_of_a_table(tmp_path: Path, world: Any) -> None:
    """A CSV of ants and bees, which have each other's texture but for one."""
    lines = ["path,label,group,texture"]
    for i, label in enumerate(["ant", "bee"] * 12):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label},{'dark' if i < 12 else ''},{'bee' if label == 'ant' or i == 1 else 'ant'}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    clf = HybridClassifier.__new__(HybridClassifier)
    clf.classes_, clf.image_shape_ = world.clf.classes_, (4, 4, 3)
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
