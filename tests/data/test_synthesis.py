"""Folders of generated images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridclf import InvalidInputError
from hybridclf.data.synthesis import synthesize

LABELS = ["cat", "dog"]


def generate(labels: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """Noise about a level of the label."""
    images = []
    for label, seed in zip(labels, seeds, strict=True):
        pixels = np.random.default_rng(seed).integers(0, 100, (4, 5, 3)) + 100 * (label == "dog")
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return images


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def test_an_interrupted_run_goes_on_with_the_same_images(tmp_path: Path) -> None:
    assert synthesize(generate, LABELS, 5, tmp_path / "whole", made_by={}, batch_size=1) == 10
    calls = 0

    def interrupted(labels: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return generate(labels, seeds)

    with pytest.raises(KeyboardInterrupt):
        synthesize(interrupted, LABELS, 5, tmp_path / "part", made_by={}, batch_size=3)
    assert synthesize(generate, LABELS, 5, tmp_path / "part", made_by={}, batch_size=3) == 4
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    images = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "whole").glob("*/*.png"))]
    assert len({image.tobytes() for image in images}) == 10, "each has a seed of its own"
    assert synthesize(generate, LABELS, 6, tmp_path / "whole", made_by={}) == 2, "more are added"


def test_other_folders_are_refused(tmp_path: Path) -> None:
    synthesize(generate, LABELS, 1, tmp_path / "made", made_by={"denoiser": "a"})
    with pytest.raises(InvalidInputError, match="denoiser was a, is b; give a new folder"):
        synthesize(generate, LABELS, 1, tmp_path / "made", made_by={"denoiser": "b"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidInputError, match="not empty"):
        synthesize(generate, LABELS, 1, tmp_path / "mine", made_by={})


@pytest.mark.parametrize("labels", [["cat"], ["cat", "a/b"], ["cat", ".."], ["cat", "Cat"], ["cat", ""]])
def test_labels_must_be_names_of_folders(labels: list[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="labels become folders"):
        synthesize(generate, labels, 1, tmp_path / "made", made_by={})
    assert not (tmp_path / "made").exists()
