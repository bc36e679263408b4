"""The result of a training: a tier 1 that guesses is called one."""

import numpy as np
import pytest
import torch

from hybridclf.data.datasets import DIGITS, LabelledImages, load_labelled
from hybridclf.metrics import accuracy
from hybridclf.pair_training.result import cut_short, guessing
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.training_data import TrainingData


@pytest.fixture(scope="module")
def mostly_zeros() -> TrainingData:
    digits = load_labelled(DIGITS, 8)
    kept = (digits.y < 2) & ((digits.y == 0) | (np.arange(len(digits.y)) % 3 == 0))
    names = tuple(np.array(digits.names)[kept].tolist())
    images = LabelledImages(digits.pixels[kept], digits.y[kept], digits.classes[:2], digits.groups[kept], (), names)
    return TrainingData.of(images, torch.device("cpu"), False, PairSettings(image_size=8, validation_fraction=0.4))


@pytest.mark.parametrize("better", [False, True])
def test_always_the_most_frequent_class(mostly_zeros: TrainingData, better: bool) -> None:
    labels = mostly_zeros.some_held_out(mostly_zeros.measure_on)[1]
    hits = (labels == mostly_zeros.classes[0]) | better
    interval = accuracy(hits)
    found = {"n": len(hits), "intervals": {"tier_1": {"low": interval.low}}}
    said = guessing(found, mostly_zeros)
    if better:
        assert said == ""
    else:
        assert f"always answering 0, which is right for {interval.percent()} of the {len(hits)} images" in said


def test_trainings_that_were_cut_short() -> None:
    log = {"n_steps": {"proposer": 60, "denoiser": 95}}
    assert cut_short(log) == ""
    late = log | {"late": {"proposer": 100, "denoiser": 100}}
    assert cut_short(late) == "Steps took longer than planned: tier 1 had 60 of 100 steps."


def test_nothing_measured(mostly_zeros: TrainingData) -> None:
    assert guessing({"n": 0}, mostly_zeros) == ""
