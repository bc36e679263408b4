"""The CIFAR-10 benchmark: the cascade is as said, and all of it runs and resumes."""

import io
import json
from pathlib import Path

import cifar10
import cifar10_recipe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cifar.rival import Cascade
from PIL import Image
from scipy.special import log_softmax

from hybridclf.pair_training import planning, run, tier_1, time_budget
from hybridclf.pair_training.train_pair import train_pair


def test_the_cascade_trusts_the_better_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    truth = np.eye(3)[y]
    first, second = (log_softmax(s * truth + rng.normal(size=truth.shape), axis=1) for s in (0.5, 3.0))
    cascade = Cascade(first, second, y)
    assert cascade.weights[1] > cascade.weights[0]
    asked = np.arange(len(y)) % 2 == 0
    posterior = cascade(np.exp(first), first, second, asked)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    np.testing.assert_array_equal(posterior[~asked], np.exp(first)[~asked])
    right = posterior.argmax(axis=1) == y
    assert right[asked].mean() > right[~asked].mean() + 0.2


# --- all of it --------------------------------------------------------------------------------------------------------


def blobs(path: Path, n: int, seed: int) -> None:
    """A Parquet file of n pictures in the layout of a Hugging Face image dataset: a square of one of three colours."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        picture = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
        x, y = rng.integers(0, 16, 2)
        picture[y : y + 16, x : x + 16, i % 3] = rng.integers(120, 255)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        rows.append({"img": {"bytes": file.getvalue(), "path": f"{i}.png"}, "label": i % 3})
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a pair that is trained for a moment, with a rival, small sizes, and an interruption in the middle."""
    corruptions = {"noise": ("Gaussian noise",), "digital": ("contrast",)}
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(run, "steps_in", lambda trainer, seconds: 12)
    monkeypatch.setattr(cifar10, "FAMILIES", corruptions)
    monkeypatch.setattr(cifar10.pictures, "FAMILIES", corruptions)
    monkeypatch.setattr(cifar10, "SHIFTED_TRIALS", 3)
    monkeypatch.setattr(cifar10, "RESULTS", tmp_path / "out")
    blobs(tmp_path / "cifar10-train.parquet", 160, 0)
    blobs(tmp_path / "cifar10-test.parquet", 40, 1)
    train_pair(tmp_path / "cifar10-train.parquet", tmp_path / "pair", minutes=10, validation_fraction=0.3)
    arguments = [str(tmp_path), str(tmp_path / "work"), "--model", str(tmp_path / "pair"), "--rival", "0.2"]
    arguments += ["--images", "40", "--shifted", "21", "--trials", "4"]

    rivalry = cifar10.Benchmark.rivalry
    monkeypatch.setattr(cifar10.Benchmark, "rivalry", lambda self, conditions: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cifar10.main(arguments)
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    monkeypatch.setattr(cifar10.Benchmark, "rivalry", rivalry)
    cifar10.main(arguments)
    assert len(chunks) > 12 and all(path.stat().st_mtime_ns == time for path, time in chunks.items())

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["clean"]["methods"]][:2] == ["tier 1", "tier 2: 4 trials"]
    assert len(report["shifted"]) == 3 * (1 + 2 * 5) and len(report["robustness"]) == 3
    conditions = {f"{name} {severity}" for names in corruptions.values() for name in names for severity in range(1, 6)}
    assert set(report["rival"]) == {"seen", "as given"} | conditions
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html", "shift.png"}


@pytest.mark.slow
def test_the_recipe_is_trained_with_the_term_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(run, "steps_in", lambda trainer, seconds: 6)
    monkeypatch.setattr(time_budget, "MIN_TRIALS", 32)
    for module in (planning, tier_1):  # however slow the machine is
        monkeypatch.setattr(module, "seconds_per_step", lambda *_: 0.01)
    monkeypatch.setattr(cifar10_recipe, "RESULTS", tmp_path / "out")
    blobs(tmp_path / "cifar10-train.parquet", 90, 0)
    cifar10_recipe.main([str(tmp_path), str(tmp_path / "work"), "--minutes", "1"])
    report = (tmp_path / "out" / "recipe.json").read_text()
    rows = json.loads(report)["rows"]
    assert {name: row["wrong_class_weight"] for name, row in rows.items()} == cifar10_recipe.VARIANTS
    for row in rows.values():
        assert (row["steps"], row["trials"], row["minutes"]) == (6, 32, 1.0)
        assert all(row[tier][1] <= row[tier][0] <= row[tier][2] for tier in cifar10_recipe.TIERS)
    (tmp_path / "cifar10-train.parquet").unlink()  # nothing is trained again
    cifar10_recipe.main([str(tmp_path), str(tmp_path / "work"), "--minutes", "1"])
    assert (tmp_path / "out" / "recipe.json").read_text() == report
