"""The CIFAR-10 benchmarks: a rival's cascade is as said, and all of them run and resume."""

import io
import json
from pathlib import Path

import as_shipped
import cifar10
import cifar10_recipe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contenders.rival import Cascade
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


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of images, and in it a pair that was trained on them for a moment."""
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(run, "steps_in", lambda trainer, seconds: 12)
    blobs(tmp_path / "cifar10-train.parquet", 160, 0)
    blobs(tmp_path / "cifar10-test.parquet", 40, 1)
    train_pair(tmp_path / "cifar10-train.parquet", tmp_path / "pair", minutes=10, validation_fraction=0.3)
    return tmp_path / "pair"


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_resumes(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small sizes, and an interruption in the middle."""
    corruptions = {"noise": ("Gaussian noise",), "digital": ("contrast",)}
    monkeypatch.setattr(cifar10, "FAMILIES", corruptions)
    monkeypatch.setattr(cifar10.pictures, "FAMILIES", corruptions)
    monkeypatch.setattr(cifar10, "SHIFTED_TRIALS", 3)
    monkeypatch.setattr(cifar10, "RESULTS", tmp_path / "out")
    arguments = [str(tmp_path), str(tmp_path / "work"), "--model", str(pair)]
    arguments += ["--images", "40", "--shifted", "21", "--trials", "4"]

    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "robustness", lambda rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cifar10.main(arguments)
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    cifar10.main(arguments)
    assert len(chunks) > 12 and all(path.stat().st_mtime_ns == time for path, time in chunks.items())

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["clean"]["methods"]][:2] == ["tier 1", "tier 2: 4 trials"]
    assert len(report["shifted"]) == 3 * (1 + 2 * 5) and len(report["robustness"]) == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html", "shift.png"}


@pytest.mark.slow
def test_a_pair_as_it_is_beside_a_rival(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(as_shipped, "STRENGTHS", {"Gaussian noise": None, "contrast": None})
    out = tmp_path / "out.json"
    arguments = [str(tmp_path), "--model", str(pair), "--rival", str(tmp_path / "rival"), "--out", str(out)]
    arguments += ["--images", "40", "--alone", "20", "--shifted", "21"]
    as_shipped.main(arguments)
    report = json.loads(out.read_text())
    rivals = {"rival", "rival, always", "rival, alone"}
    assert set(report["clean"]["hybrid minus"]) == rivals and len(report["shifted"]["rows"]) == 2 * 5
    assert set(report["shifted"]["hybrid minus"]) == rivals | {"tier 1"}
    log = json.loads((tmp_path / "rival" / "training" / "log.json").read_text())
    own = json.loads((pair / "training" / "log.json").read_text())
    assert log["spec"] == own["settings"]["proposer"] and log["n_steps"]["rival"] == own["n_steps"]["proposer"]
    for row in (report["clean"], *report["shifted"]["rows"].values()):
        for name in rivals:  # all answers are for the same images
            assert row["hybrid minus"][name][0] == pytest.approx(row["hybrid"][0] - row[name][0])
    differences = [row["hybrid minus"]["rival"][0] for row in report["shifted"]["rows"].values()]
    assert report["shifted"]["hybrid minus"]["rival"][0] == pytest.approx(np.mean(differences))
    assert "| rival, alone |" in capsys.readouterr().out
    (tmp_path / "rival" / "training" / "log.json").unlink()  # nothing is trained again
    as_shipped.main(arguments)
    again = json.loads(out.read_text())
    assert again["clean"]["rival"] == report["clean"]["rival"]


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
