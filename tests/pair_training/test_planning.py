"""The size of new networks by the time there is."""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf.data.datasets import load_labelled
from hybridclf.pair_training import planning
from hybridclf.pair_training.networks import PROPOSERS, WIDTHS, new_trainable, new_unet
from hybridclf.pair_training.planning import ENOUGH_PASSES, ENOUGH_STEPS, new_denoiser, new_proposer
from hybridclf.pair_training.recipe import denoiser_job, proposer_job
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData


@pytest.fixture(scope="module")
def data() -> TrainingData:
    settings = PairSettings(image_size=8, validation_fraction=0.9)
    return TrainingData.of(load_labelled("digits", 8), torch.device("cpu"), False, settings)


@pytest.fixture(autouse=True)
def _one_second_per_hundred_thousand_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "seconds_per_step", seconds_per_step)


def seconds_per_step(trainer: Any) -> float:
    return sum(p.numel() for p in trainer.network.parameters()) / 1e5


def test_tier_1_is_the_largest_that_sees_the_images_often_enough(data: TrainingData) -> None:
    steps = max(ENOUGH_STEPS, ENOUGH_PASSES * -(-len(data.y) // 128))
    weights = [sum(p.numel() for p in new_trainable(data, spec).network.parameters()) for spec in PROPOSERS]
    assert weights == sorted(weights)
    for spec, n in zip(PROPOSERS[1:], weights[1:], strict=True):
        enough = steps * n / 1e5
        assert new_proposer(PROPOSERS, data, enough + 0.01)[0] == spec
        assert new_proposer(PROPOSERS, data, enough - 0.01)[0] == PROPOSERS[PROPOSERS.index(spec) - 1]
    spec, made = new_proposer(PROPOSERS, data, 0.0)
    assert spec == PROPOSERS[0] and made.network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert new_proposer(("timm:small",), data, 0.0)[0] == "timm:small"


def test_tier_2_is_the_widest_that_takes_enough_steps(data: TrainingData) -> None:
    enough = ENOUGH_STEPS * sum(p.numel() for p in new_unet(data, WIDTHS[1]).parameters()) / 1e5
    assert new_denoiser(data, enough + 0.01).config["width"] == WIDTHS[1]
    assert new_denoiser(data, enough - 0.01).config["width"] == WIDTHS[0]
    assert new_denoiser(data, 1e9).config["width"] == WIDTHS[-1]


@pytest.mark.usefixtures("native_bfloat16")
def test_networks_are_trained_in_bfloat16_where_that_is_native(data: TrainingData) -> None:
    network = new_trainable(data, "timm:convnet16").network
    for job in (proposer_job(data, network), denoiser_job(data, new_unet(data, WIDTHS[0]))):
        assert job.trainer.config.bf16
        job.trainer.n_steps = 2
        assert all(loss.isfinite() for loss in job.trainer.run())


@pytest.mark.parametrize(("minutes", "compiled"), [(30.0, (False, True)), (24.0, (False, False))])
def test_networks_are_compiled_if_their_share_of_the_time_pays_for_it(
    minutes: float, compiled: tuple[bool, bool], data: TrainingData
) -> None:
    """Half an hour, the default, compiles tier 2; a convolutional tier 1 is slower so on a CPU."""
    data = replace(data, compiles=True, settings=replace(data.settings, minutes=minutes))
    network = new_trainable(data, PROPOSERS[0]).network
    jobs = proposer_job(data, network), denoiser_job(data, new_unet(data, WIDTHS[0]))
    assert tuple(job.trainer.config.compiled for job in jobs) == compiled


def test_the_seed_alone_decides_the_weights(data: TrainingData) -> None:
    torch.manual_seed(5)
    first = new_denoiser(data, 0.0).state_dict()
    torch.manual_seed(6)
    before = torch.get_rng_state()
    second = new_denoiser(data, 0.0).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_settings_may_be_numbers_of_numpy() -> None:
    settings = PairSettings(seed=np.int64(3), image_size=np.int64(16))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(settings)))["image_size"] == 16 and type(settings.seed) is int
