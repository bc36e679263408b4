"""`hybridclf tune` on images that the model's tier 1 was trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hybridclf import FixedTrials, HybridClassifier
from hybridclf.cli import app
from hybridclf.data.holding_out import digests, pack, unpack
from tests.adapters.tiny_pair import specs_of

LABELS = ["ant", "bee"]
PICTURES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
SHAPE = (8, 8, 3)


def hashed(pictures: np.ndarray) -> np.ndarray:
    """Digests of pictures as a pair of `SHAPE` has them."""
    small = [Image.fromarray(picture).resize(SHAPE[:2], Image.Resampling.BOX) for picture in pictures]
    return digests(np.stack([np.asarray(picture) for picture in small]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, picture in enumerate(PICTURES):
        path = tmp_path / "data" / LABELS[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path, text_pair: Path) -> Path:
    """A model whose tier 1 was trained on the first 18 pictures, and its fusion fitted on the next two."""
    folder = tmp_path / "model"
    HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(2), random_state=0).fit(None, LABELS).save(folder)
    (folder / "training").mkdir()
    known = {"trained_on": pack(hashed(PICTURES[:18])), "fitted_on": pack(hashed(PICTURES[18:20]))}
    (folder / "training" / "log.json").write_text(json.dumps(known | {"hashed_shape": SHAPE}))
    return folder


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[str, dict[str, Any]]]:
    """`begun(DATA, option, …)`: output and log of a tuning that is interrupted before its first step."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def of(*arguments: str | Path) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr("hybridclf.tuning.tune._train", stop)
        data, *options = map(str, arguments)
        result = CliRunner().invoke(app, ["tune", data, str(tmp_path / "out"), *options], env={"COLUMNS": "300"})
        assert "go on with the same command and --resume" in result.output, result.output
        return result.output, json.loads((tmp_path / "out" / "training" / "log.json").read_text())

    return of


def test_images_that_tier_1_was_trained_on_are_not_held_out(
    data: Path, model: Path, text_pair: Path, begun: Callable[..., tuple[str, dict[str, Any]]]
) -> None:
    """Those that its fusion alone saw may be, as it is fitted anew; by default a fifth would be held out, six."""
    output, log = begun(data, "--model", model, "--denoiser", specs_of(text_pair)[1], "--val", "0.3")
    assert "18 images in" in output and "are not held out: the model was trained on them." in output
    fitted_on = unpack(log["fitted_on"])
    assert unpack(log["trained_on"]).tolist() == np.unique(hashed(PICTURES[:18])).tolist()
    assert np.isin(fitted_on, hashed(PICTURES[18:])).all() and len(fitted_on) == 3
    assert log["hashed_shape"] == list(SHAPE)


def test_of_tiers_by_name_the_log_says_what_the_result_was_trained_on(
    data: Path, text_pair: Path, begun: Callable[..., tuple[str, dict[str, Any]]]
) -> None:
    proposer, denoiser = specs_of(text_pair)
    output, log = begun(data, "--proposer", proposer, "--denoiser", denoiser, "--val", "0.5")
    assert "not held out" not in output and log["hashed_shape"] is None
    parts = unpack(log["trained_on"]), unpack(log["fitted_on"])
    assert tuple(map(len, parts)) == (12, 6)
    assert np.isin(np.concatenate(parts), digests(PICTURES)).all() and not set(parts[0]) & set(parts[1])


def test_of_captions_the_log_says_so_too(
    data: Path, model: Path, begun: Callable[..., tuple[str, dict[str, Any]]]
) -> None:
    lines = [{"image": str(path), "caption": "a wall", "wrong": ["a road"]} for path in sorted(data.glob("*/*.png"))]
    file = data / "captions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    log = begun(file, "--model", model, "--val", "0.2")[1]
    assert set(hashed(PICTURES[:18])) < set(unpack(log["trained_on"])) and len(unpack(log["fitted_on"])) > 0
