"""Features of timm's classifiers, and their networks with a new classifier: as timm's own functions have them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.models import save_for_hf

from hybridclf.errors import InvalidInputError
from hybridclf.ports import FeatureModel
from hybridclf_adapters._timm_features import TimmFineTunable
from hybridclf_adapters.timm import TimmProposer, load


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (70, w, 3), dtype=np.uint8)) for w in (40, 100, 160)]


def saved(folder: Path, name: str, **arguments: object) -> str:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **arguments)
    if "img_size" in arguments:  # timm leaves that to who saves
        network.pretrained_cfg.update(input_size=(3, arguments["img_size"], arguments["img_size"]))
    save_for_hf(network, str(folder), {"num_classes": 5}, dict(arguments), safe_serialization=True)
    return f"local-dir:{folder}"


def saved_with(proposer: TimmProposer, weight: np.ndarray, bias: np.ndarray, classes: list[str], folder: Path) -> str:
    """Spec string of the network with a new classifier, saved."""
    tunable = proposer.with_head(weight, bias, classes)
    return tunable.save(tunable.network, folder)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_features_are_timms_of_the_whole_image(name: str, images: list[Image.Image], tmp_path: Path) -> None:
    spec = saved(tmp_path / "net", name)
    proposer = load(spec)
    network = timm.create_model(spec, pretrained=True).eval()
    kept = {key: network.pretrained_cfg[key] for key in ("input_size", "mean", "std", "interpolation")}
    stretch = create_transform(**kept, crop_mode="squash", crop_pct=1.0)
    with torch.no_grad():
        maps = network.forward_features(torch.stack([stretch(image) for image in images]))
        expected = network.forward_head(maps, pre_logits=True)
    assert isinstance(proposer, FeatureModel) and proposer.feature_side == kept["input_size"][1]
    np.testing.assert_allclose(proposer.features(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_a_new_classifier_is_saved_with_the_network(name: str, images: list[Image.Image], tmp_path: Path) -> None:
    proposer, rng = load(saved(tmp_path / "net", name)), np.random.default_rng(0)
    features = proposer.features(images)
    weight, bias = rng.normal(size=(3, features.shape[1])), rng.normal(size=3)
    spec = saved_with(proposer, weight, bias, ["7", "a b", "cat"], tmp_path / "new")
    assert spec == f"timm:local-dir:{tmp_path / 'new'}"
    loaded = load(spec.removeprefix("timm:")).fit(None)
    assert loaded.classes_.tolist() == ["7", "a b", "cat"]
    expected = torch.from_numpy(features @ weight.T + bias).log_softmax(dim=1)
    np.testing.assert_allclose(loaded.predict_log_proba(images), expected, rtol=1e-4, atol=1e-4)
    assert proposer.fit(None).predict_log_proba(images).shape == (3, 5)  # it has kept its own


def test_a_networks_arguments_are_kept(images: list[Image.Image], tmp_path: Path) -> None:
    spec = saved(tmp_path / "net", "test_vit", img_size=96)
    proposer = load(spec)
    assert proposer.feature_side == 96
    n_features = proposer.features(images[:1]).shape[1]
    saved_with(proposer, np.zeros((2, n_features)), np.zeros(2), ["a", "b"], tmp_path / "new")
    assert load(f"local-dir:{tmp_path / 'new'}").fit(None).predict_proba(images).tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize(
    ("name", "arguments"), [("test_vit", {"img_size": 96}), ("whitened_convnet", {"widths": [8, 16]})]
)
def test_arguments_that_no_folder_has_are_kept(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    """As of a network from the hub."""
    network = timm.create_model(name, num_classes=5, **arguments).eval()
    weight = np.ones((2, network.num_features))
    tunable = TimmFineTunable(network, weight, np.zeros(2), ["a", "b"])
    tunable.save(tunable.network, tmp_path / "new")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'new'}", pretrained=True).eval()
    kept, own = loaded.state_dict(), network.state_dict()
    assert all(torch.equal(kept[key], own[key]) for key in own if not key.startswith(network.default_cfg["classifier"]))
    assert torch.equal(loaded.get_classifier().weight, torch.ones(2, network.num_features))


def test_a_classifier_of_two_layers_is_refused(images: list[Image.Image], tmp_path: Path) -> None:
    """As of distilled transformers."""
    proposer = load(saved(tmp_path / "net", "deit_tiny_distilled_patch16_224", depth=1, embed_dim=12, num_heads=2))
    n_features = proposer.features(images[:1]).shape[1]
    with pytest.raises(InvalidInputError, match="is no linear layer of its"):
        proposer.check_head()
    with pytest.raises(InvalidInputError, match="is no linear layer of its"):
        proposer.with_head(np.zeros((2, n_features)), np.zeros(2), ["a", "b"])


def test_a_network_that_answers_by_more_than_its_classifier_is_refused(tmp_path: Path) -> None:
    """A VOLO adds what an auxiliary classifier says of its tokens."""
    proposer = load(saved(tmp_path / "net", "volo_d1_224", img_size=64))
    with pytest.raises(InvalidInputError, match="is no linear layer of its"):
        proposer.check_head()
    load(saved(tmp_path / "other", "test_vit")).check_head()


# --- to be trained further --------------------------------------------------------------------------------------------


def as_pixels(images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)) for image in images]).permute(0, 3, 1, 2).float()


def smooth(side: int) -> list[Image.Image]:
    """Images without grain, which all ways of resizing leave alike."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(3)]
    return [image.resize((side, side), Image.Resampling.BICUBIC) for image in small]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("side", [64, 300])
def test_a_network_of_pixels_answers_as_its_features_do(name: str, side: int, tmp_path: Path) -> None:
    proposer, images = load(saved(tmp_path / "net", name)), smooth(side)
    features = proposer.features(images)
    weight, bias = np.random.default_rng(0).normal(size=(3, features.shape[1])), np.zeros(3)
    tunable = proposer.with_head(weight, bias, ["a", "b", "c"])
    with torch.no_grad():
        logits = tunable.network(as_pixels(images))
    expected = features @ weight.T
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.ptp(expected))


def test_a_network_of_grey_images_sees_what_pillow_makes_of_colours(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    network.pretrained_cfg.update(input_size=(1, 96, 96), mean=(0.5,), std=(0.25,))
    save_for_hf(network, str(tmp_path / "net"), {"num_classes": 5}, {"in_chans": 1}, safe_serialization=True)
    proposer, images = load(f"local-dir:{tmp_path / 'net'}"), smooth(96)
    features = proposer.features(images)
    weight = np.random.default_rng(0).normal(size=(3, features.shape[1]))
    with torch.no_grad():
        logits = proposer.with_head(weight, np.zeros(3), ["a", "b", "c"]).network(as_pixels(images))
    expected = features @ weight.T
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.ptp(expected))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_rates_fall_from_the_last_layer_to_the_first(name: str, tmp_path: Path) -> None:
    proposer = load(saved(tmp_path / "net", name))
    n_features = proposer.features(smooth(64)).shape[1]
    tunable = proposer.with_head(np.zeros((2, n_features)), np.zeros(2), ["a", "b"])
    rates, names = tunable.learning_rates(0.5, 0.0), [key for key, _ in tunable.network.named_parameters()]
    assert set(rates) == set(names) and all(np.log2(rate) == round(np.log2(rate)) for rate in rates.values())
    classifier = timm.create_model(name).default_cfg["classifier"]
    assert rates[f"network.{classifier}.weight"] == 1 and min(rates.values()) == rates[names[0]] < 0.5
    floored = tunable.learning_rates(0.5, 0.3)
    assert floored == {key: max(rate, 0.3) for key, rate in rates.items()}


def test_it_stays_in_evaluation_and_a_trained_copy_is_saved(tmp_path: Path) -> None:
    proposer, images = load(saved(tmp_path / "net", "test_efficientnet")), smooth(64)
    n_features = proposer.features(images).shape[1]
    tunable = proposer.with_head(np.zeros((2, n_features)), np.zeros(2), ["a", "b"])
    before = proposer.features(images)
    trained = copy.deepcopy(tunable.network).train()
    trained(as_pixels(images)).square().sum().backward()
    statistics = {key: value for key, value in trained.state_dict().items() if "running" in key}
    fresh = tunable.network.state_dict()
    assert statistics and all(torch.equal(value, fresh[key]) for key, value in statistics.items())
    assert all(parameter.grad is not None for parameter in trained.parameters())
    with torch.no_grad():
        trained.network.get_classifier().bias[1] += 5
        for parameter in trained.network.conv_stem.parameters():
            parameter.mul_(0.5)
    loaded = load(tunable.save(trained, tmp_path / "trained").removeprefix("timm:")).fit(None)
    np.testing.assert_allclose(loaded.predict_proba(images)[:, 1], 1 / (1 + np.exp(-5)), rtol=1e-5)
    kept, own = loaded.model.state_dict(), trained.network.state_dict()
    assert all(torch.equal(kept[key], own[key]) for key in own)
    np.testing.assert_array_equal(proposer.features(images), before)  # the model itself is as it was
