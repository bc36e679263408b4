"""Networks that start from another pair's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hybridclf.data.datasets import load_labelled
from hybridclf.data.holding_out import digests
from hybridclf.pair_training.networks import CLASS_TABLE, new_trainable
from hybridclf.pair_training.planning import new_denoiser
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.start_from import Start
from hybridclf.pair_training.train_pair import _seen
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.pretrained.catalog import model_folder
from tests.pair_training.squares import COLOURS, SIDE, draw

PAIR = model_folder("cifar10")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Squares of three colours, and the embedded pair for photographs to start from."""
    images = load_labelled(draw(tmp_path_factory.mktemp("squares")), 32)
    start = Start.of(PAIR, images.classes, 32)
    return TrainingData.of(images, torch.device("cpu"), True, PairSettings(), seen=start.seen, start=start)


def differing(network: torch.nn.Module, file: Path) -> list[str]:
    """Names of the weights that a file does not have so."""
    saved: Mapping[str, Any] = load_file(file)
    own = network.state_dict()
    return [name for name in own if name not in saved or not own[name].equal(saved[name].to(own[name].dtype))]


def test_the_classes_decide_what_is_taken() -> None:
    same, other = Start.of(PAIR, CLASSES, 32), Start.of(PAIR, sorted(COLOURS), 32)
    assert (same.same_classes, same.note) == (True, "")
    assert not other.same_classes and other.note == f"tier 2 starts from that of {PAIR}, its weights by class are new"
    assert same.proposer == other.proposer == "timm:convnet64"


def test_networks_for_other_classes_have_all_weights_but_those_by_class(data: TrainingData) -> None:
    proposer = new_trainable(data, "timm:convnet64").network[-1]
    assert differing(proposer, PAIR / "proposer" / "model.safetensors") == ["head.weight", "head.bias"]
    denoiser = new_denoiser(data, 0.0)
    assert denoiser.config["n_classes"] == len(COLOURS) and denoiser.config["width"] == 64
    assert differing(denoiser, PAIR / "denoiser.safetensors") == [CLASS_TABLE]


def test_a_network_of_another_size_is_new(data: TrainingData) -> None:
    made, new = (
        new_trainable(some, "timm:convnet16").network.state_dict()
        for some in (data, TrainingData(**vars(data) | {"start": None}))
    )
    assert all(made[name].equal(new[name]) for name in new)


def test_networks_for_the_same_classes_have_all_weights(data: TrainingData) -> None:
    same = {"start": Start.of(PAIR, CLASSES, 32), "classes": np.array(CLASSES)}
    for_ten = TrainingData(**vars(data) | same)
    proposer = new_trainable(for_ten, "timm:convnet64").network[-1]
    assert not differing(proposer, PAIR / "proposer" / "model.safetensors")
    assert not differing(new_denoiser(for_ten, 0.0), PAIR / "denoiser.safetensors")


@pytest.mark.parametrize(("classes", "are_known"), [(["blue", "pink"], True), (["pink", "yellow"], False)])
def test_images_that_it_saw_in_another_size(classes: list[str], are_known: bool, tmp_path: Path) -> None:
    """They are looked for where a class has the same name."""
    folder = draw(tmp_path)
    images, small = load_labelled(folder, SIDE), load_labelled(folder, 32)
    start = Start(PAIR, classes, False, {"image_size": 32}, digests(small.pixels[:10]))
    found = _seen(start, images, folder, None)
    assert np.isin(digests(images.pixels), found).tolist() == [are_known and i < 10 for i in range(len(images.y))]
    assert np.isin(start.seen, found).all()
