"""Split of a training's images, and what is said about it."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from hybridclf.data.datasets import load_labelled
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData
from tests.pair_training.squares import SIDE, draw


def test_a_sample_has_all_classes_first(tmp_path: Path) -> None:
    settings = PairSettings(image_size=16, validation_fraction=0.4)
    data = TrainingData.of(load_labelled(draw(tmp_path), SIDE), torch.device("cpu"), True, settings)
    some = data.sample(10)
    assert len(set(some.tolist())) == 10
    assert sorted(data.y.numpy()[some[:3]].tolist()) == [0, 1, 2]
    assert len(data.sample(10**6)) == len(data.y)


@pytest.mark.parametrize(("step", "together"), [(24, False), (64, True)])
def test_held_out_tiles_of_trained_pictures_are_reported(tmp_path: Path, step: int, together: bool) -> None:
    """Tiles of 64 pixels, cut every 24 pixels; or side by side, which share nothing."""
    for label, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (tmp_path / label).mkdir()
        for y in range(100, 300, step):
            for x in range(40, 520, step):
                tile = Image.fromarray(photo[y : y + 64, x : x + 64])
                tile.save(tmp_path / label / f"{y}-{x}.png")
    settings = PairSettings(image_size=32, validation_fraction=0.2)
    data = TrainingData.of(load_labelled(tmp_path, 32), torch.device("cpu"), True, settings)
    if together:
        assert len(data.overlaps) <= 1  # the temple's roof has parts that are alike
        return
    assert len(data.overlaps) > len(data.held_out) / 4
    held_out, trained_on = data.overlaps[0].split(" (held out) and ")
    (y, x), (v, u) = (map(int, Path(name).stem.split("-")) for name in (held_out, trained_on))
    assert Path(held_out).parent == Path(trained_on).parent and 0 < max(abs(y - v), abs(x - u)) < 64
