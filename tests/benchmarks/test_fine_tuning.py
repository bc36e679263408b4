"""The benchmark of fine-tuning, on small pictures."""

import json
from pathlib import Path

import fine_tuning
import pytest
import timm
import torch
from timm.models import save_for_hf

from hybridclf.pair_training import planning, pretrained_tier_1, time_budget
from tests.benchmarks.test_worth import dots


@pytest.mark.slow
def test_both_trainings_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is fine-tuned, the other is not; neither is trained again."""
    for module, name, value in (
        (planning, "WIDTHS", (16,)),
        (time_budget, "MIN_STEPS", 1),
        (pretrained_tier_1, "MIN_STEPS", 1),
        (fine_tuning, "FEATURES_ALONE", 0.8),
    ):
        monkeypatch.setattr(module, name, value)
    (tmp_path / "data").mkdir()
    for seed, (name, n) in enumerate({"dots-train": 600, "dots-test": 60}.items()):
        dots(tmp_path / "data" / f"{name}.parquet", n, seed)
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(network, str(tmp_path / "net"), {"num_classes": 7}, safe_serialization=True)
    options = ["--proposer", f"timm:local-dir:{tmp_path / 'net'}", "--minutes", "0.8", "--out", str(tmp_path / "out")]
    arguments = [str(tmp_path / "data"), str(tmp_path / "work"), *options]
    fine_tuning.main(arguments)
    found = json.loads((tmp_path / "out").read_text())
    assert list(found["rows"]) == ["dots", "dots, corrupted"] and found["rows"]["dots"]["n"] == 60
    assert "before" in found["trainings"]["dots"]["fine_tuning"]
    plain = json.loads((tmp_path / "work" / "dots-features" / "training" / "log.json").read_text())
    assert plain["fine_tuning"]["sentence"].startswith("Tier 1 is not fine-tuned")
    monkeypatch.setattr(fine_tuning, "train_pair", None)
    fine_tuning.main(arguments)
    assert json.loads((tmp_path / "out").read_text())["rows"] == found["rows"]
