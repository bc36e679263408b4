"""Costs of the contenders: FLOPs of trainings against those counted by hand, and their table."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from contenders.costs import pretrained_flops, training_flops
from contenders.report import cost_table
from timing import flops
from timm.models import save_for_hf
from torch import Tensor, nn

from hybridclf.data.datasets import load_labelled
from hybridclf.pair_training.recipe import Job
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.training.trainer import Trainer, TrainerConfig
from tests.benchmarks.test_worth import dots


@pytest.mark.parametrize(
    ("layer", "shape", "forward"),
    [
        (nn.Linear(7, 3), (5, 7), 2 * 5 * 7 * 3),
        (nn.Conv2d(8, 12, 3, padding=1), (5, 8, 10, 10), 2 * 5 * 12 * 8 * 9 * 100),
        (nn.Conv2d(8, 12, 3, padding=1, stride=2, groups=4), (5, 8, 10, 10), 2 * 5 * 12 * 2 * 9 * 25),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (5, 8, 10, 10), 2 * 5 * 8 * 9 * 100),
        (nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4), (5, 8, 10, 10), 2 * 5 * 8 * 3 * 4 * 100),
    ],
)
def test_a_gradient_costs_as_much_as_the_forward_pass(layer: nn.Module, shape: tuple[int, ...], forward: int) -> None:
    first, inner = torch.zeros(shape), torch.zeros(shape, requires_grad=True)
    assert flops(lambda: layer(first)) == forward
    assert flops(lambda: layer(first).sum().backward()) == 2 * forward  # no gradient of the images
    assert flops(lambda: layer(inner).sum().backward()) == 3 * forward


def loss(network: nn.Module, images: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    return F.cross_entropy(network(images), y)


def job(network: nn.Module, n_steps: int = 0, muon: bool = False) -> Job:
    """The training of a network on twelve vectors of six numbers, in batches of 5, 5 and 2."""
    config = TrainerConfig(batch_size=5, muon=muon)
    trainer = Trainer(network, torch.zeros(12, 6), torch.zeros(12, dtype=torch.long), loss, config, n_steps, 0)
    return Job("rival", trainer, lambda _: 0.0, {})


def log(compiled: bool = False) -> dict[str, Any]:
    """Log of a training of six steps, of which more were planned."""
    configs = {"rival": {"batch_size": 5, "compiled": compiled}}
    return {"configs": configs, "n_steps": {"rival": 60}, "losses": {"rival": [{"step": 3}, {"step": 6}]}}


def test_a_training_has_the_flops_of_its_steps() -> None:
    gradient = forward = 2 * 6 * 3
    assert training_flops(job(nn.Linear(6, 3)), log(), 12) == 2 * 12 * (forward + gradient)
    assert training_flops(job(nn.Linear(6, 3)), log(compiled=True), 12) == 6 * 5 * (forward + gradient)


def test_flops_of_a_training_are_those_of_running_it() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))

    run = job(network(), n_steps=6, muon=True).trainer
    counted = flops(lambda: list(run.run()))
    assert training_flops(job(network(), muon=True), log(), 12) == counted
    assert counted > flops(lambda: list(job(network(), n_steps=6).trainer.run()))  # Muon's own are among them


def test_flops_of_a_pretrained_network(tmp_path: Path) -> None:
    dots(tmp_path / "dots-train.parquet", 70, 0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    save_for_hf(network, str(tmp_path / "net"), {"num_classes": 3}, safe_serialization=True)
    images = load_labelled(tmp_path / "dots-train.parquet", 16)
    data = TrainingData.of(images, torch.device("cpu"), True, PairSettings(image_size=16))
    some = torch.zeros(1, 3, *network.default_cfg["input_size"][1:])
    forward, classifier = flops(lambda: network.eval()(some)), flops(lambda: network.classifier(torch.zeros(1, 256)))
    plain: dict[str, Any] = {
        "settings": {"proposer": f"timm:local-dir:{tmp_path / 'net'}"},
        "head": {"n_features": 256},
        "losses": {},
    }
    features = (forward - classifier) * len(data.y)
    assert pretrained_flops(data, plain, 16) == features
    # batches of 32 and the rest of two passes; the first layer has no gradient of the images
    stem = flops(lambda: network.conv_stem(some))
    tuned = {"configs": {"proposer": {"batch_size": 32, "compiled": False}}, "losses": {"proposer": [{"step": 4}]}}
    found = pretrained_flops(data, plain | tuned, 16)
    assert found - features == pytest.approx(2 * len(data.y) * (3 * forward - stem), rel=0.02)


def test_the_table_of_costs() -> None:
    cost = {"minutes": 1.26, "training flops": 2.34e15, "flops": 5.6e7}
    assert cost_table({"dots": {"tier 1": cost, "tier 2": cost | {"minutes": 0.5}}}).splitlines() == [
        "| trained on | method | minutes | training, TFLOP | an answer, MFLOP |",
        "|---|---|---|---|---|",
        "| dots | tier 1 | 1.3 | 2340.0 | 56.0 |",
        "| dots | tier 2 | 0.5 | 2340.0 | 56.0 |",
    ]
