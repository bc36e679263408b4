"""A training that goes on where it was interrupted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hybridclf.training.trainer import TrainerConfig
from recipes.resumable import fit

CONFIG = TrainerConfig(learning_rate=0.1)


class Killed(Exception):
    pass


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def losses(model: nn.Module, killed_at: int | None = None) -> Callable[[int], dict[str, Tensor]]:
    def loss_at(step: int) -> dict[str, Tensor]:
        if step == killed_at:
            raise Killed
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"error": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    return loss_at


def test_an_interrupted_training_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, first, second = linear(), linear(), linear()
    whole = fit(tmp_path / "whole", model, losses(model), 45, CONFIG)
    monkeypatch.setattr("recipes.resumable.SAVE_EVERY", 0.0)
    with pytest.raises(Killed):
        fit(tmp_path / "part", first, losses(first, killed_at=27), 45, CONFIG)
    resumed = fit(tmp_path / "part", second, losses(second), 45, CONFIG)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    logs = [
        [json.loads(line) for line in (tmp_path / f"{name}.log").read_text().splitlines()] for name in ("whole", "part")
    ]
    assert [line["step"] for line in logs[0]] == [0, 20, 40]
    assert [line | {"time": 0} for line in logs[0]] == [line | {"time": 0} for line in logs[1]]
    assert logs[0][-1]["error"] < 0.1 * logs[0][0]["error"]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    model = linear()
    fit(tmp_path / "x", model, losses(model), 3, CONFIG, recipe={"width": 1})
    with pytest.raises(SystemExit, match="width"):
        fit(tmp_path / "x", model, losses(model), 3, CONFIG, recipe={"width": 2})


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    model = linear()
    fit(tmp_path / "x", model, losses(model), 3, CONFIG)
    with pytest.raises(SystemExit, match=r"'learning_rate': 0\.1,.*, not .*'learning_rate': 0\.2"):
        fit(tmp_path / "x", model, losses(model), 3, replace(CONFIG, learning_rate=0.2))
