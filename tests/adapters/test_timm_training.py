"""New timm networks: trained as they are, saved as timm does, and loaded by the timm adapter with the same answers."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model

from hybridclf import HybridClassifier, plugins
from hybridclf.errors import UncalibratedWarning, UnknownSpecError
from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf_adapters import timm
from hybridclf_adapters.timm_training import TimmTrainable, load

MEAN, SCALE = [120.0, 110.0, 100.0], [60.0, 61.0, 62.0]


def new(name: str = "small", size: int = 32, classes: tuple[str, ...] = ("7", "a b", "cat")) -> TimmTrainable:
    torch.manual_seed(0)
    return load(name, classes=classes, image_size=size, mean=MEAN, scale=SCALE)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_what_is_saved_answers_as_the_network_does(tmp_path: Path, size: int) -> None:
    made = new(size=size)
    network = made.network.to(memory_format=torch.channels_last).eval()
    for parameter in network[-1].get_classifier().parameters():
        torch.nn.init.normal_(parameter)  # the default is close to zero
    network.half().float()  # as it will be kept
    spec = made.save(network, tmp_path / "my proposer")
    assert spec == f"timm:local-dir:{tmp_path / 'my proposer'}"
    assert {path.name for path in (tmp_path / "my proposer").iterdir()} == {"config.json", "model.safetensors"}
    X = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    x = (torch.from_numpy(X).float() - torch.tensor(MEAN)) / torch.tensor(SCALE)
    with torch.no_grad():
        expected = network(x.permute(0, 3, 1, 2)).log_softmax(dim=1)
    proposer = timm.load(spec.removeprefix("timm:")).fit(None, ["cat", "7", "a b"])
    assert expected.std() > 0.1
    rtol, atol = (0.02, 0.03) if size < 64 else (0, 1e-4)  # enlarged by the adapter, to whole numbers
    np.testing.assert_allclose(proposer.predict_log_proba(X), expected[:, [2, 0, 1]], rtol=rtol, atol=atol)


def test_small_is_small() -> None:
    assert sum(p.numel() for p in new(classes=tuple("abcdefghij")).network.parameters()) < 500_000


@pytest.mark.usefixtures("native_bfloat16")
def test_a_network_of_ours_multiplies_in_bfloat16_where_that_is_native(tmp_path: Path) -> None:
    made, photos = new("convnet16"), np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    spec = made.save(made.network, tmp_path / "proposer")
    mixed, exact, cast = (
        plugins.load("proposer", f"{spec}{option}", device="cpu").fit(None)
        for option in ("", "?precision=fp32", "?precision=bf16")
    )
    assert [next(p.model.parameters()).dtype for p in (mixed, exact, cast)] == [*[torch.float32] * 2, torch.bfloat16]
    wanted = exact.logits(photos)
    spread = wanted.std()
    assert 0 < abs(mixed.logits(photos) - wanted).max() < 0.03 * spread
    assert len(np.unique(mixed.logits(photos))) == mixed.logits(photos).size  # no ties by rounding
    other = new("small")
    spec = other.save(other.network, tmp_path / "other")
    both = [plugins.load("proposer", f"{spec}{option}", device="cpu").fit(None) for option in ("", "?precision=fp32")]
    np.testing.assert_array_equal(*(proposer.logits(photos) for proposer in both))


def test_it_is_found_by_its_entry_point() -> None:
    made = plugins.load("trainable", "timm:small", classes=["a", "b"], image_size=8, mean=MEAN, scale=SCALE)
    assert made.network(torch.zeros(2, 3, 8, 8)).shape == (2, 2)


def test_without_its_weights_a_pair_has_random_ones_in_tier_1_too(tmp_path: Path) -> None:
    classes = ["7", "a b", "cat"]
    made = new(size=8)
    spec = made.save(made.network, tmp_path / "pair" / "proposer")
    denoiser = LateConditionedDenoiser(LateUNet((3, 8, 8), 3, width=16), classes, np.full(3, 128.0), np.full(3, 74.0))
    X = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedWarning)
        HybridClassifier(spec, denoiser, random_state=0).fit(X, classes * 2).save(tmp_path / "pair")
    timm.register("hybridclf_test_forgotten", tmp_path / "pair")
    with_weights, without = (create_model("hybridclf_test_forgotten", pretrained=p) for p in (True, False))
    both = zip(with_weights.named_parameters(), without.parameters(), strict=True)
    tier_1 = [(a, b) for (name, a), b in both if name.startswith("proposer") and a.ndim > 1]
    assert len(tier_1) > 10 and not any(torch.equal(a, b) for a, b in tier_1)


def test_a_pair_of_trained_networks_knows_classes_that_no_image_for_calibration_shows(tmp_path: Path) -> None:
    classes = ["7", "a b", "cat"]
    made = new("convnet16", size=8)
    spec = made.save(made.network, tmp_path / "proposer")
    denoiser = LateConditionedDenoiser(LateUNet((3, 8, 8), 3, width=16), classes, np.full(3, 128.0), np.full(3, 74.0))
    X = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedWarning)
        clf = HybridClassifier(spec, denoiser, random_state=0).fit(X, ["cat", "7"] * 4)
    assert clf.classes_.tolist() == classes and clf.predict_proba(X).shape == (8, 3)


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_other_networks_are_refused(name: str) -> None:
    with pytest.raises(UnknownSpecError, match=f"'timm:{name}' is no new network to train; type one of: 'timm:conv"):
        new(name)
    with pytest.raises(UnknownSpecError, match='"timm:…"'):
        plugins.load("trainable", "sklearn:SVC")


@pytest.mark.parametrize(("size", "side"), [(8, 64), (48, 96), (64, 64), (80, 80)])
def test_small_images_are_enlarged_by_a_whole_factor(size: int, side: int) -> None:
    made = new(size=size)
    assert made.network[-1].pretrained_cfg["input_size"] == (3, side, side)
    assert made.network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_the_base_networks_test_crop_is_not_used(tmp_path: Path) -> None:
    made = new(size=64)
    spec = made.save(made.network, tmp_path).removeprefix("timm:")
    assert "test_crop_pct" not in json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    transform = timm.load(spec).transform
    x = (image / 255 - np.array(MEAN) / 255) / (np.array(SCALE) / 255)
    np.testing.assert_allclose(transform(Image.fromarray(image)).permute(1, 2, 0), x, atol=1e-5)
    # as pairs have it that were saved before test crops were used
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["test_crop_pct"] = 0.95
    (tmp_path / "config.json").write_text(json.dumps(config))
    transform = timm.load(spec).transform
    np.testing.assert_allclose(transform(Image.fromarray(image)).permute(1, 2, 0), x, atol=1e-5)
