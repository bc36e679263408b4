"""Images of a pair's training, read and split as they were."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cifar.training_images import training_images
from PIL import Image

from hybridclf.data.datasets import load_labelled
from hybridclf.data.holding_out import pack
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData


def pictures(path: Path, n: int) -> Path:
    """A Parquet file of n noisy pictures of 32 pixels, of three classes."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
        rows.append({"img": {"bytes": file.getvalue(), "path": f"{i}.png"}, "label": i % 3})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def logged(folder: Path, source: Path, side: int) -> TrainingData:
    """A training whose tier 1 saw images of another side than tier 2, with its log in a folder."""
    settings = PairSettings(image_size=16, validation_fraction=0.5)
    data = TrainingData.of(load_labelled(source, side), torch.device("cpu"), True, settings)
    (folder / "training").mkdir(parents=True)
    log = {
        "settings": {"image_size": 16, "validation_fraction": 0.5, "side": side},
        "trained_on": pack(data.digests),
        "usage": {"n_fusion": len(data.fit_on)},
    }
    (folder / "training" / "log.json").write_text(json.dumps(log))
    return data


def test_images_are_split_as_they_were_in_the_size_of_tier_1(tmp_path: Path) -> None:
    source = pictures(tmp_path / "train.parquet", 48)
    trained = logged(tmp_path / "pair", source, 32)
    data, fusion = training_images(source, tmp_path / "pair", "cpu")
    np.testing.assert_array_equal(data.digests, trained.digests)
    np.testing.assert_array_equal(data.held_out_photos, trained.held_out_photos)
    np.testing.assert_array_equal(fusion, trained.fit_on)
    assert data.photos.shape[1:] == (32, 32, 3) and data.pixels.shape[1:] == (16, 16, 3)


def test_a_file_that_lacks_images_of_the_training_is_refused(tmp_path: Path) -> None:
    source = pictures(tmp_path / "train.parquet", 48)
    logged(tmp_path / "pair", source, 32)
    with pytest.raises(SystemExit, match=r"lacks \d+ images .* was trained on; give the file that has all"):
        training_images(pictures(tmp_path / "fewer.parquet", 24), tmp_path / "pair")
