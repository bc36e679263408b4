"""timm as a proposer, against timm's own transform and forward; hybridclf's pairs as timm models."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from timm.data import (
    ImageNetInfo,
    create_dataset,
    create_loader,
    create_transform,
    resolve_input_data_config,
    resolve_model_data_config,
)
from timm.models import get_pretrained_cfg, resolve_model_input_args, save_for_hf

from hybridclf import FixedTrials, HybridClassifier, plugins
from hybridclf.errors import InvalidInputError, InvalidTypeError, SavedModelError, UnknownLabelError, UnknownSpecError
from hybridclf.models import LateConditionedDenoiser, LateUNet
from hybridclf.pretrained.catalog import models
from hybridclf.proposer import is_trained, resolve_proposer
from hybridclf_adapters._timm_checks import is_labelled
from hybridclf_adapters._timm_registry import register_folders
from hybridclf_adapters.timm import HybridModel, TimmProposer, class_names, load, register
from tests.adapters.tiny_pair import specs_of

ROOT = Path(__file__).resolve().parents[2]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NAMES = ["pug", "beagle", "tabby", "crane", "crane"]
DIGITS = load_digits()


def save(folder: Path, *, label_names: Any = None, **kwargs: Any) -> str:
    """A small model with random weights, saved by timm itself; its spec."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", **kwargs)
    for parameter in model.get_classifier().parameters():
        torch.nn.init.normal_(parameter)  # the default is close to zero
    model.pretrained_cfg.update(input_size=(kwargs.get("in_chans", 3), 64, 64), crop_pct=0.8, interpolation="bilinear")
    if kwargs.get("in_chans") == 1:
        model.pretrained_cfg.update(mean=(0.45,), std=(0.25,))
    config = {"num_classes": model.num_classes} | ({"label_names": label_names} if label_names else {})
    save_for_hf(model, str(folder), model_config=config, model_args=kwargs, safe_serialization=True)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("timm"), num_classes=5, label_names=NAMES)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> TimmProposer:
    return load(save(tmp_path_factory.mktemp("timm"), num_classes=1000))


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (70, w, 3), dtype=np.uint8)) for w in (70, 90, 60, 64, 70)]


@torch.no_grad()
def by_hand(spec: str, images: list[Image.Image]) -> torch.Tensor:
    """Logits `[n, num_classes]` by timm alone, as its documentation has them."""
    model = timm.create_model(spec, pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    return model(torch.stack([transform(image) for image in images]))


# --- the proposer -----------------------------------------------------------------------------------------------------


def test_equals_timm(spec: str, images: list[Image.Image]) -> None:
    proposer = load(spec).fit(None)
    expected = by_hand(spec, images).log_softmax(dim=1)
    assert expected.std() > 0.1
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=1e-5)
    assert proposer.classes_.tolist() == ["pug", "beagle", "tabby", "crane (3)", "crane (4)"]
    assert proposer.predict(images).tolist() == [proposer.classes_[i] for i in expected.argmax(dim=1)]
    one_by_one = load(spec, batch_size=1).fit(None).predict_log_proba(images)
    np.testing.assert_allclose(one_by_one, expected, rtol=0, atol=1e-5)


def test_a_subset_is_renormalised_in_the_order_asked_for(spec: str, images: list[Image.Image]) -> None:
    logits = by_hand(spec, images)
    proposer = load(spec).fit(None, ["tabby", "pug"])
    expected = logits[:, [2, 0]].log_softmax(dim=1)
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=1e-5)
    proposer.fit(images, ["pug", "tabby", "tabby", "pug", "crane (4)"])
    assert proposer.classes_.tolist() == ["crane (4)", "pug", "tabby"]
    expected = logits[:, [4, 0, 2]].log_softmax(dim=1)
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=1e-5)
    assert proposer.fit(None, np.array([3, 0])).classes_.tolist() == [3, 0]  # numbers will do
    np.testing.assert_allclose(proposer.predict_log_proba(images), logits[:, [3, 0]].log_softmax(dim=1), atol=1e-5)


def test_grey_models_get_grey_images(tmp_path: Path, images: list[Image.Image]) -> None:
    spec = save(tmp_path, num_classes=4, in_chans=1)
    proposer = load(spec).fit(None)
    assert proposer.classes_.tolist() == [0, 1, 2, 3]
    expected = by_hand(spec, [image.convert("L") for image in images]).log_softmax(dim=1)
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=1e-5)


def test_grey_models_with_the_colours_of_rgb_ones(tmp_path: Path) -> None:
    spec = save(tmp_path, num_classes=4, in_chans=1)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["pretrained_cfg"] |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    pixels = load(spec).transform(Image.new("L", (64, 64), 255))
    torch.testing.assert_close(pixels, torch.full((1, 64, 64), (1 - 0.5) / 0.25))


def test_imagenet_names(imagenet: TimmProposer) -> None:
    names, _ = class_names(imagenet.model)
    info = ImageNetInfo()
    assert len(set(names)) == 1000
    assert names[0] == info.index_to_description(0) == "tench, Tinca tinca"
    asked = [
        "tench",
        "n01443537",
        "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
    ]
    assert imagenet.fit(None, asked)._columns == [0, 1, 2]
    assert imagenet.classes_.tolist() == asked
    assert imagenet.fit(None, ["maillot", "maillot, tank suit"])._columns == [638, 639]  # one's only name, other's too
    with pytest.raises(UnknownLabelError, match=r"several classes.*'crane \(n02012849\)', 'crane \(n03126707\)'"):
        imagenet.fit(None, ["crane", "tench"])
    with pytest.raises(UnknownLabelError, match=r"did you mean .*'tabby'"):
        imagenet.fit(None, ["tench", "taby"])
    with pytest.raises(InvalidInputError, match="the same class"):
        imagenet.fit(None, ["tench", "Tinca tinca"])
    with pytest.raises(InvalidInputError, match="differ"):
        imagenet.fit(None, ["tench", "tench"])


def test_label_names_of_the_model_come_before_imagenets(imagenet: TimmProposer) -> None:
    model = copy.copy(imagenet.model)
    own = [f"class {i}" for i in range(1000)]
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": own}
    assert class_names(model)[0] == own
    model.pretrained_cfg["label_names"] = ImageNetInfo().label_names()  # ids: ImageNet's after all
    assert class_names(model)[0][1] == "goldfish, Carassius auratus"
    model.pretrained_cfg["label_names"] = {"3": "three"}  # as JSON has a sparse map
    assert class_names(model)[0][:5] == ["0", "1", "2", "three", "4"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet5", "did you mean .*'resnet50'"),
        ("resnet50.nonesuch", r"Invalid pretrained tag \(nonesuch\).*resnet50\.a1_in1k"),
        ("resnet14t", "test"),
        ("owner/repo", "hf-hub:owner/repo"),
        ("local-dir:/no/such/folder", "/no/such/folder"),
        ("nowhere:resnet50", "valid sources"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    if spec == "resnet14t":  # whichever it is that timm has no weights for
        spec = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
        message = f"no weights for '{spec}'"
    with pytest.raises(UnknownSpecError, match=message):
        load(spec)


def crops(folder: Path, **config: Any) -> tuple[str, Any, Any]:
    """A model with more of timm's configuration: its spec, and what timm makes of an image in tests and by default."""
    spec = save(folder, num_classes=4)
    saved = json.loads((folder / "config.json").read_text())
    saved["pretrained_cfg"] |= config
    (folder / "config.json").write_text(json.dumps(saved))
    model = timm.create_model(spec, pretrained=True)
    made = (create_transform(**resolve_model_data_config(model, use_test_size=test)) for test in (True, False))
    return spec, *made


def test_the_size_and_crop_for_tests(tmp_path: Path, images: list[Image.Image]) -> None:
    spec, for_tests, default = crops(tmp_path, test_input_size=(3, 96, 96), test_crop_pct=1.0)
    x, other = for_tests(images[1]), default(images[1])
    assert x.shape == (3, 96, 96) and other.shape == (3, 64, 64)
    proposer = load(spec)
    torch.testing.assert_close(proposer.transform(images[1]), x)
    with torch.no_grad():
        expected = proposer.model(torch.stack([for_tests(image) for image in images])).log_softmax(dim=1)
    np.testing.assert_allclose(proposer.fit(None).predict_log_proba(images), expected, rtol=0, atol=1e-5)


def test_the_crop_for_tests_alone(tmp_path: Path, images: list[Image.Image]) -> None:
    spec, for_tests, default = crops(tmp_path, test_crop_pct=1.0)
    assert not torch.equal(for_tests(images[0]), default(images[0]))
    torch.testing.assert_close(load(spec).transform(images[0]), for_tests(images[0]))


def test_a_model_of_one_size_gets_that_size(tmp_path: Path, images: list[Image.Image]) -> None:
    model = timm.create_model("test_vit", num_classes=4, img_size=64)
    save_for_hf(model, str(tmp_path), model_config={"num_classes": 4}, safe_serialization=True)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["pretrained_cfg"] |= {"test_input_size": (3, 96, 96), "input_size": (3, 64, 64), "fixed_input_size": True}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    proposer = load(f"local-dir:{tmp_path}").fit(None)
    assert proposer.transform(images[0]).shape == (3, 64, 64)
    assert proposer.predict_log_proba(images).shape == (5, 4)


def checkpoint(path: Path, n_classes: int = 5, name: str = "test_resnet", **kwargs: Any) -> torch.nn.Module:
    """A small model with random weights, which are written to a file; ".pth" as timm's train.py has it."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=n_classes, **kwargs).eval()
    for parameter in model.get_classifier().parameters():
        torch.nn.init.normal_(parameter)  # the default is close to zero
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"arch": name, "epoch": 3, "state_dict": model.state_dict()}, path)
    return model


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_resnet.r160_in1k"])
@pytest.mark.parametrize("file", ["model.safetensors", "last.pth", "model_best.pth.tar"])
def test_a_checkpoint(tmp_path: Path, name: str, file: str, images: list[Image.Image]) -> None:
    model = checkpoint(tmp_path / file, name=name.partition(".")[0])
    proposer = load(f"{name}/{tmp_path / file}").fit(None)
    assert proposer.classes_.tolist() == [0, 1, 2, 3, 4]
    transform = create_transform(**resolve_model_data_config(model, use_test_size=True))
    with torch.no_grad():
        expected = model(torch.stack([transform(image) for image in images])).log_softmax(dim=1)
    assert expected.std() > 0.1
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=1e-4)
    assert "state_dict" not in proposer.model.pretrained_cfg


def test_a_checkpoint_of_imagenet_has_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("own.safetensors"), n_classes=1000)
    proposer = plugins.load("proposer", "timm:test_resnet/own.safetensors").fit(None, ["goldfish"])
    assert proposer.names[1] == "goldfish, Carassius auratus"


def test_names_for_the_outputs_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("own.pth"), n_classes=3)
    (tmp_path / "names.txt").write_text("cat, domestic\ndog\nfrog\n")
    for given, names in (("cat, dog,frog", ["cat", "dog", "frog"]), ("names.txt", ["cat, domestic", "dog", "frog"])):
        proposer = plugins.load("proposer", f"timm:test_resnet/own.pth?label_names={given}").fit(None)
        assert proposer.classes_.tolist() == proposer.names == names
        assert proposer.fit(None, ["frog", names[0]])._columns == [2, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cat,dog", "3 different names, one for each output in its order, got 2 names"),
        ("cat,dog,cat", "3 different names"),
        ("cat,,dog", "3 different names"),
        ("nowhere.txt", "cannot be read as a text file"),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("own.pth"), n_classes=3)
    with pytest.raises(InvalidInputError, match=message):
        plugins.load("proposer", f"timm:test_resnet/own.pth?label_names={given}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("test_resnet/nowhere.pth", "no checkpoint 'nowhere.pth'"),
        ("test_resnet/", "no checkpoint"),
        ("test_resnet/folder", "no checkpoint 'folder'"),
        ("test_resnett/own.safetensors", "no model 'test_resnett'; did you mean .*'test_resnet'"),
        ("test_resnett/nowhere.pth", "hf-hub:test_resnett/nowhere.pth"),
        ("own.safetensors", "'own.safetensors' is a file; type 'timm:MODEL/own.safetensors'"),
        ("./folder", "'./folder' is a folder; type 'timm:local-dir:./folder'"),
        ("folder", "'folder' is a folder; type 'timm:local-dir:folder'"),
        ("test_resnet.nonesuch/own.safetensors", r"Invalid pretrained tag \(nonesuch\)"),
    ],
)
def test_checkpoints_that_are_not_there(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    checkpoint(Path("own.safetensors"))
    with pytest.raises(UnknownSpecError, match=message):
        load(spec)


def test_checkpoints_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("resnet.safetensors"))
    with pytest.raises(SavedModelError, match=r"VisionTransformer.*trained with.*save_for_hf"):
        load("test_vit/resnet.safetensors")
    weights = timm.create_model("test_resnet").state_dict()
    save_file({name: value for name, value in weights.items() if "layer1" not in name}, "part.safetensors")
    with pytest.raises(SavedModelError, match=r"Missing key.*layer1"):
        load("test_resnet/part.safetensors")
    save_file(weights | {"fc.bias": torch.zeros(7)}, "two.safetensors")  # a weight for 1000 classes
    with pytest.raises(SavedModelError, match=r"size mismatch for fc\.bias"):
        load("test_resnet/two.safetensors")
    torch.save([torch.zeros(3)], "list.pth")
    torch.save({"state_dict": Trap()}, "trap.pth")
    Path("text.pth").write_text("no weights")
    Path("text.safetensors").write_text("no weights")
    Path("empty.pth").touch()
    Path("other.pth").write_text("text")  # which torch takes for a pickle of nothing
    for file in ("list.pth", "trap.pth", "text.pth", "text.safetensors", "empty.pth", "other.pth"):
        with pytest.raises(SavedModelError, match=file):
            load(f"test_resnet/{file}")
    assert not Path("trapped").exists()


@pytest.mark.parametrize("key", ["model_args", "label_names"])
def test_a_configuration_for_another_number_of_classes(tmp_path: Path, key: str) -> None:
    spec = save(tmp_path, num_classes=5)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved[key] = {"num_classes": 4} if key == "model_args" else NAMES[:4]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(SavedModelError, match=r"(5|4) classes and a model of (4|5)"):
        load(spec)


def test_a_folder_of_another_library(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(SavedModelError, match=r"no timm model.*'architecture'"):
        load(f"local-dir:{tmp_path}")


EMBEDDING = [
    "vit_base_patch32_clip_224.openai",
    "vit_base_patch16_clip_quickgelu_224",
    "resnet50_clip.openai",
    "convnext_base.clip_laion2b",
    "eva02_base_patch16_clip_224.merged2b",
    "fastvit_mci0.apple_mclip",
    "vitamin_small_224.datacomp1b_clip",
    "vit_pe_core_tiny_patch16_384.fb",
]


@pytest.mark.parametrize("name", EMBEDDING)
def test_embeddings_are_no_classes(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"outputs of '{name}' are an embedding.*open_clip"):
        load(name)  # which downloads nothing


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224.webli", "vit_small_patch14_dinov2.lvd142m"])
def test_features_are_refused_before_they_are_downloaded(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}' has no classifier"):
        load(name)


def test_every_classifier_of_timm_is_taken_for_one() -> None:
    found = timm.list_pretrained(exclude_filters="hybridclf_*")
    refused = [name for name in found if get_pretrained_cfg(name).num_classes and not is_labelled(name)]
    assert {"vit_base_patch16_224.augreg_in21k", "vit_base_patch16_clip_224.openai_ft_in1k"}.isdisjoint(refused)
    assert not [name for name in refused if re.search(r"in(1|12|21|22)k|inw21k|bamboo", name.partition(".")[2])]
    assert all(re.search("clip|pe_core", name) for name in refused)  # towers for images beside ones for text


def test_an_embedding_in_a_folder_or_a_file(tmp_path: Path) -> None:
    name, size = "vit_xsmall_patch16_clip_224", {"depth": 1, "img_size": 32}
    model = timm.create_model(f"{name}.tinyclip_yfcc15m", **size)
    save_for_hf(model, str(tmp_path), model_args=size, safe_serialization=True)
    with pytest.raises(InvalidInputError, match=r"512 outputs .* are an embedding"):
        load(f"local-dir:{tmp_path}")
    named = {"label_names": [f"class {i}" for i in range(512)]}
    save_for_hf(model, str(tmp_path), model_config=named, model_args=size, safe_serialization=True)
    assert load(f"local-dir:{tmp_path}").names[:2] == ["class 0", "class 1"]
    model.reset_classifier(3)
    save_for_hf(model, str(tmp_path), model_args=size, safe_serialization=True)
    assert load(f"local-dir:{tmp_path}").names == [0, 1, 2]


def test_features_without_a_classifier_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    save_for_hf(model, str(tmp_path), model_config={"num_classes": 0}, safe_serialization=True)
    with pytest.raises(InvalidInputError, match="no classifier"):
        load(f"local-dir:{tmp_path}")


def test_five_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="5 channels"):
        load(save(tmp_path, num_classes=4, in_chans=5))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_pickles_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = save(tmp_path, num_classes=4)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": Trap()}, "pytorch_model.bin")
    with pytest.raises(SavedModelError, match=r"safetensors\.torch\.save_file"):
        load(spec)
    assert not Path("trapped").exists()


def test_precision(spec: str, images: list[Image.Image]) -> None:
    with pytest.raises(InvalidInputError, match="precision"):
        load(spec, precision="half")
    low = load(spec, precision="bf16", device="cpu").fit(None).predict_log_proba(images)
    difference = abs(low - load(spec).fit(None).predict_log_proba(images)).max()
    assert 0 < difference < 0.3


def test_copies(spec: str, images: list[Image.Image]) -> None:
    proposer = load(spec).fit(None, ["pug", "tabby"])
    expected = proposer.predict_log_proba(images)
    assert is_trained(proposer) and resolve_proposer(proposer).model is proposer.model
    twin = clone(HybridClassifier(proposer=proposer)).proposer.fit(None)
    assert twin.model is proposer.model and proposer.classes_.tolist() == ["pug", "tabby"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(proposer)).predict_log_proba(images), expected)


# --- hybridclf's pairs as timm models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colours() -> tuple[HybridClassifier, np.ndarray]:
    """A pair for uint8 RGB images with names for classes, and images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["blue", "green", "red"], 20)
    X = rng.integers(0, 120, (60, 8, 8, 3), dtype=np.uint8)
    for colour, channel in (("red", 0), ("green", 1), ("blue", 2)):
        X[labels == colour, ..., channel] += 60
    return HybridClassifier(max_iter=3, cv=0.3, random_state=0).fit(X, labels), X


@pytest.fixture(scope="module")
def digits() -> HybridClassifier:
    """A pair for grey images with values from 0 to 16."""
    return HybridClassifier(max_iter=3, cv=0.3, random_state=0).fit(DIGITS.images[:200], DIGITS.target[:200])


@pytest.fixture(scope="module")
def names(
    colours: tuple[HybridClassifier, np.ndarray], digits: HybridClassifier, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both, saved and registered as embedded pairs are; one of vectors lies beside them. Folders by name."""
    folder = tmp_path_factory.mktemp("pretrained")
    colours[0].save(folder / "test-colours")
    digits.save(folder / "test-digits")
    vectors = copy.copy(digits)
    vectors.image_shape_ = (64,)
    vectors.save(folder / "test-vectors")
    (folder / "unrelated").mkdir()
    register_folders(folder)
    return {f"hybridclf_test_{name}": folder / f"test-{name}" for name in ("colours", "digits")}


def embedded_names() -> set[str]:
    return {"hybridclf_" + re.sub(r"\W", "_", model.name) for model in models()}


def test_registered(names: dict[str, Path]) -> None:
    for pretrained in (False, True):
        assert set(names) <= set(timm.list_models("hybridclf_test_*", pretrained=pretrained))
    assert all(map(timm.is_model_pretrained, names))
    for name, folder in names.items():
        with pytest.raises(InvalidInputError, match=f"{name!r} already"):
            register(name, folder)
    with pytest.raises(InvalidInputError, match="'resnet50' already"):
        register("resnet50", names["hybridclf_test_digits"])


def test_embedded_pairs_are_registered() -> None:
    assert set(timm.list_models("hybridclf_*")) - set(timm.list_models("hybridclf_test_*")) == embedded_names()


def test_colours(names: dict[str, Path], colours: tuple[HybridClassifier, np.ndarray]) -> None:
    clf, X = colours
    model = timm.create_model("hybridclf_test_colours", pretrained=True).eval()
    config = resolve_model_data_config(model)
    assert config["input_size"] == (3, 8, 8) and model.num_classes == 3 and model.in_chans == 3
    assert model.pretrained_cfg["label_names"] == ("blue", "green", "red")
    assert model.pretrained_cfg is model.default_cfg
    transform = create_transform(**config, is_training=False)
    x = torch.stack([transform(Image.fromarray(image)) for image in X])
    actual = model(x)
    assert actual.dtype == torch.float32 and actual.shape == (60, 3) and not actual.requires_grad
    # The pixels reach the classifier as they were in the file, so nothing differs.
    np.testing.assert_array_equal(actual, clf.predict_log_proba(X).astype(np.float32))
    noise = 3 * torch.randn(2, 3, 8, 8)
    expected = clf.predict_log_proba(255 * (0.5 * noise.permute(0, 2, 3, 1).double() + 0.5).numpy())
    np.testing.assert_allclose(model(noise), expected, atol=1e-4)


def test_digits(names: dict[str, Path], digits: HybridClassifier) -> None:
    model = timm.create_model("hybridclf_test_digits", pretrained=True)
    assert resolve_model_data_config(model)["input_size"] == (1, 8, 8)
    X = DIGITS.images[300:340]
    x = torch.from_numpy(X / 16 - 0.5).float()[:, None] / 0.5
    expected = digits.predict_log_proba(X)
    np.testing.assert_allclose(model(x), expected, atol=1e-4)
    np.testing.assert_allclose(model(x.expand(-1, 3, -1, -1)), expected, atol=1e-4)  # RGB, as most loaders give it
    assert timm.create_model("hybridclf_test_digits", pretrained=True, in_chans=3).in_chans == 3


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # timm's datasets leave that to the garbage collector
def test_timms_own_loaders(names: dict[str, Path], digits: HybridClassifier, tmp_path: Path) -> None:
    X, y = DIGITS.images[300:330], DIGITS.target[300:330]
    write_images(tmp_path, X, y)
    expected = digits.predict_log_proba(np.round(X * 255 / 16) * 16 / 255)
    order = np.argsort(y, kind="stable")
    for prefetch, mode in ((True, "L"), (True, "RGB"), (False, "L")):
        arguments = {"img_size": None, "in_chans": None, "input_size": None}
        # as validate.py has it
        model = timm.create_model(**resolve_model_input_args("hybridclf_test_digits", arguments, pretrained=True))
        config = resolve_input_data_config(model, arguments, use_test_size=True)
        loader = create_loader(
            create_dataset(name="", root=str(tmp_path), input_img_mode=mode),
            batch_size=16,
            use_prefetcher=prefetch,
            num_workers=0,
            persistent_workers=False,
            device=torch.device("cpu"),
            **config,
        )
        with torch.inference_mode():
            batches = [(model.eval()(x), target) for x, target in loader]
        assert torch.cat([target for _, target in batches]).tolist() == y[order].tolist()
        np.testing.assert_allclose(torch.cat([values for values, _ in batches]), expected[order], atol=1e-3)


def test_another_configuration_is_followed(names: dict[str, Path], digits: HybridClassifier) -> None:
    overlay = {"mean": (0.3,), "std": (0.4,), "file": str(names["hybridclf_test_digits"])}
    model = timm.create_model("hybridclf_test_digits", pretrained=True, pretrained_cfg_overlay=overlay)
    x = (torch.from_numpy(DIGITS.images[:9] / 16).float()[:, None] - 0.3) / 0.4
    np.testing.assert_allclose(model(x), digits.predict_log_proba(DIGITS.images[:9]), atol=1e-4)


def test_module_habits(names: dict[str, Path]) -> None:
    model = timm.create_model("hybridclf_test_digits", pretrained=True)
    x = torch.randn(4, 1, 8, 8)
    expected = model.eval()(x)
    assert not any(module.training for module in model.modules())

    state = model.state_dict()
    other = timm.create_model("hybridclf_test_digits")
    assert state.keys() == other.state_dict().keys() and len(state) == len(list(model.parameters())) > 0
    assert all(p.device.type == "cpu" for p in other.parameters())
    assert all((other.state_dict()[name] != value).any() for name, value in state.items())  # not pretrained
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x), expected)

    twin = copy.deepcopy(model).to("cpu", torch.float32)
    denoiser = twin.estimator.denoiser_
    assert denoiser.dtype == torch.float32 and denoiser.device == torch.device("cpu")
    assert model.estimator.denoiser_.dtype == torch.float64  # a copy is a copy
    np.testing.assert_allclose(twin(x), expected, atol=1e-2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(x), expected)


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(DIGITS.images[300:308] / 8 - 1).float()[:, None]


@pytest.fixture(scope="module")
def model(names: dict[str, Path]) -> HybridModel:
    return timm.create_model("hybridclf_test_digits", pretrained=True)


def test_training_mode_changes_no_answer(tmp_path: Path) -> None:
    """Batch statistics and dropout, of a tier 1 that has both, stay out of it."""
    spec = save(tmp_path, num_classes=2, label_names=["a", "b"], drop_rate=0.5)
    means = {label: np.full((8, 8, 3), 100.0 + 50 * i) for i, label in enumerate("ab")}
    denoiser = LateConditionedDenoiser(LateUNet((3, 8, 8), 2, width=16), list(means), np.zeros(3), np.ones(3))
    clf = HybridClassifier(load(spec), denoiser, allocation=FixedTrials(2), random_state=0).fit(None, ["a", "b"])
    model = HybridModel.from_estimator(clf)
    assert not model.training
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    expected, state = model(x), copy.deepcopy(model.state_dict())
    assert model.train().training and not any(network.training for network in model.children())
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert not model.eval().training
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"backend": "eager"}, {}, {"backend": "eager", "fullgraph": True}])
def test_compiled_it_answers_as_it_is(model: HybridModel, batch: torch.Tensor, options: dict[str, Any]) -> None:
    expected = model(batch)
    torch.testing.assert_close(torch.compile(model, **options)(batch), expected, rtol=0, atol=0)
    inplace = copy.deepcopy(model)
    inplace.compile(**options)
    torch.testing.assert_close(inplace(batch), expected, rtol=0, atol=0)


def test_compiled_within_another_module(model: HybridModel, batch: torch.Tensor) -> None:
    wrapped = torch.nn.Sequential(model, torch.nn.Softmax(dim=1))
    torch.testing.assert_close(torch.compile(wrapped, backend="eager")(batch), model(batch).softmax(dim=1))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "convert",
    [
        lambda model, x: torch.jit.script(model),
        lambda model, x: torch.jit.trace(model, x),
        lambda model, x: torch.export.export(model, (x,)),
        lambda model, x: torch.fx.symbolic_trace(model),
        lambda model, x: torch.vmap(model)(x[:, None]),
        lambda model, x: model(x.to("meta")),
    ],
    ids=["script", "trace", "export", "fx", "vmap", "meta"],
)
def test_graphs_are_refused(model: HybridModel, batch: torch.Tensor, convert: Any) -> None:
    with pytest.raises(InvalidInputError, match="no graph: it cannot be traced, scripted or exported"):
        convert(model, batch)


def test_training_is_refused(model: HybridModel, batch: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match=r"model\.eval\(\).*hybridclf train"):
        copy.deepcopy(model).train()(batch)
    with pytest.raises(InvalidInputError, match="gradients"):
        model(batch.clone().requires_grad_())
    with pytest.raises(InvalidInputError, match="gradients"):
        model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)


def test_features_are_the_log_posteriors(model: HybridModel, batch: torch.Tensor) -> None:
    expected = model(batch)
    features = model.forward_features(batch)
    assert features.shape == (8, model.num_features) and model.head_hidden_size == model.num_features
    for pre_logits in (False, True):
        torch.testing.assert_close(model.forward_head(features, pre_logits=pre_logits), expected, rtol=0, atol=0)
    torch.testing.assert_close(model.get_classifier()(features), expected, rtol=0, atol=0)
    model.reset_classifier(10)
    for others in ({"num_classes": 5}, {"num_classes": 0}, {"num_classes": 10, "global_pool": "max"}):
        with pytest.raises(InvalidInputError, match="fit a HybridClassifier"):
            model.reset_classifier(**others)
    torch.testing.assert_close(model(batch), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision(model: HybridModel, batch: torch.Tensor, dtype: torch.dtype) -> None:
    expected = model(batch).argmax(dim=1)
    agreeing = (copy.deepcopy(model).to(dtype)(batch.to(dtype)).argmax(dim=1) == expected).float().mean()
    assert agreeing >= 0.75
    with torch.autocast("cpu", dtype):
        assert model(batch).dtype == torch.float32


def test_created_in_a_place_and_from_a_checkpoint(model: HybridModel, batch: torch.Tensor, tmp_path: Path) -> None:
    name = "hybridclf_test_digits"
    cast = timm.create_model(name, pretrained=True, device="cpu", dtype=torch.float32)
    assert {p.dtype for p in cast.parameters()} == {torch.float32}
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for made in (
        timm.create_model(name, checkpoint_path=tmp_path / "w.safetensors"),
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": model.state_dict()}),
    ):
        torch.testing.assert_close(made(batch), model(batch), rtol=0, atol=0)
    save_for_hf(model, str(tmp_path / "hf"), safe_serialization=True)
    with pytest.raises(InvalidInputError, match=r"HybridClassifier\.save"):
        timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True)


@NEEDS_GPU
def test_moves_to_a_gpu(names: dict[str, Path]) -> None:
    model = timm.create_model("hybridclf_test_digits", pretrained=True)
    x = torch.randn(4, 1, 8, 8)
    expected = model(x)
    actual = model.to("cuda")(x.to("cuda"))
    assert actual.device.type == model.estimator.denoiser_.device.type == "cuda"
    np.testing.assert_allclose(actual.cpu(), expected, atol=1e-3)


@pytest.mark.parametrize("arguments", [{"num_classes": 5}, {"in_chans": 4}, {"features_only": True}, {"img_size": 32}])
def test_what_cannot_be_had(names: dict[str, Path], arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        timm.create_model("hybridclf_test_digits", pretrained=True, **arguments)
    allowed = {"num_classes": 10, "in_chans": 1, "img_size": 8, "drop_rate": 0.0}
    assert timm.create_model("hybridclf_test_digits", pretrained=True, **allowed).num_classes == 10


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 2, 8, 8), (2, 1, 9, 8), (2, 64)])
def test_batches_of_the_wrong_shape(digits: HybridClassifier, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"\[B, 1, 8, 8\]"):
        HybridModel.from_estimator(digits)(torch.zeros(shape))


def test_from_estimator(colours: tuple[HybridClassifier, np.ndarray]) -> None:
    clf, X = colours
    model = HybridModel.from_estimator(clf, mean=(0.0,) * 3, std=(1.0,) * 3)
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(model(x), clf.predict_log_proba(X).astype(np.float32))
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in clf.denoiser_.network.parameters())
    with pytest.raises(InvalidTypeError, match="fitted"):
        HybridModel.from_estimator(HybridClassifier())


def test_from_any_classifier(colours: tuple[HybridClassifier, np.ndarray]) -> None:
    X, y = colours[1], np.repeat([0, 1, 2], 20)
    plain = LogisticRegression(max_iter=20, C=1e-4).fit(X.reshape(60, -1) / 255, y)
    with pytest.raises(InvalidInputError, match="input_size"):
        HybridModel.from_estimator(plain)
    plain.pixel_range_ = (0, 1)  # which no scikit-learn classifier knows
    model = HybridModel.from_estimator(plain, input_size=(3, 8, 8))
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(model(x), plain.predict_log_proba(X.reshape(60, -1) / 255), atol=1e-5)


def test_from_a_pair_that_takes_images_of_any_size(spec: str, gaussian_denoiser: Any) -> None:
    means = {label: np.full((8, 8, 3), 100.0 + 50 * i) for i, label in enumerate(["pug", "tabby"])}
    tiers = load(spec), gaussian_denoiser(means, s=90.0)
    clf = HybridClassifier(*tiers, allocation=FixedTrials(4), random_state=0).fit(None, list(means))
    model = HybridModel.from_estimator(clf)
    assert not model.pretrained_cfg["fixed_input_size"]
    X = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(X).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_array_equal(model(x), clf.predict_log_proba(X).astype(np.float32))
    n_own = sum(p.numel() for p in clf.proposer_.model.parameters())
    assert sum(p.numel() for p in model.parameters()) == n_own
    model.to(torch.bfloat16)
    assert clf.proposer_.dtype == torch.bfloat16
    np.testing.assert_array_equal(model(x), clf.predict_log_proba(X).astype(np.float32))


@pytest.fixture
def text_model(text_pair: Path) -> HybridModel:
    """open_clip proposes, Stable Diffusion decides; tiny, with random weights."""
    clf = HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(2), device="cpu", random_state=0)
    return HybridModel.from_estimator(clf.fit(None, ["cat", "dog", "hen"])).eval()


def test_all_networks_of_a_pair_that_reads_text_are_cast(text_model: HybridModel) -> None:
    parts = {name.split(".")[1] for name in text_model.state_dict() if name.startswith("denoiser")}
    assert parts == {"unet", "vae", "text_encoder"}
    x = torch.rand(2, 3, 32, 40) * 2 - 1
    expected = text_model(x)
    for dtype, atol in ((torch.float64, 1e-4), (torch.float32, 0), (torch.bfloat16, 0.1)):
        text_model.to(dtype)
        assert {p.dtype for p in text_model.parameters()} == {dtype}
        denoiser = text_model.estimator.denoiser_
        assert denoiser.condition(["cat"])["text"].dtype == denoiser.encode([np.zeros((9, 9), np.uint8)]).dtype == dtype
        np.testing.assert_allclose(text_model(x), expected, atol=atol)


def test_all_of_a_pair_that_reads_text_moves(text_model: HybridModel) -> None:
    text_model.to("meta")
    assert all(t.is_meta for t in (*text_model.parameters(), *text_model.buffers()))
    denoiser = text_model.estimator.denoiser_
    assert denoiser.schedule.alpha.is_meta
    assert denoiser.device.type == text_model.estimator.proposer_.device.type == "meta"


@NEEDS_GPU
def test_a_pair_that_reads_text_moves_to_a_gpu(text_model: HybridModel) -> None:
    x = torch.rand(2, 3, 32, 40) * 2 - 1
    expected = text_model(x)
    assert {p.device.type for p in text_model.to("cuda").parameters()} == {"cuda"}
    np.testing.assert_allclose(text_model(x.cuda()).cpu(), expected, atol=1e-3)


def write_images(folder: Path, X: np.ndarray, y: np.ndarray) -> None:
    """Digits as 8-bit files, in a folder by class."""
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        path = folder / str(label) / f"{i:05d}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)


@pytest.mark.slow
def test_scripts_run_with_our_models_registered(names: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("FOUND = True\n")
    script = tmp_path / "scripts" / "script.py"
    script.write_text(
        textwrap.dedent("""
        import argparse, json, sys
        import beside, timm
        import hybridclf_adapters.timm  # a second time, and nothing is registered twice
        parser = argparse.ArgumentParser()
        parser.add_argument("--folder")
        args = parser.parse_args()
        assert __name__ == "__main__" and beside.FOUND
        hybridclf_adapters.timm.register("hybridclf_here", args.folder)
        print(json.dumps({"timm": timm.__file__, "argv": sys.argv, "models": timm.list_models("hybridclf_*")}))
        sys.exit(3)
        """)
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    command = [sys.executable, "-m", "hybridclf_adapters.timm", str(script), "--folder"]
    done = subprocess.run(
        [*command, str(names["hybridclf_test_digits"])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["timm"]) == Path(timm.__file__)
    assert result["argv"] == [str(script), "--folder", str(names["hybridclf_test_digits"])]
    assert set(result["models"]) == embedded_names() | {"hybridclf_here"}


def test_embedded_digits() -> None:
    model = timm.create_model("hybridclf_digits", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    files = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in DIGITS.images[::9]]
    expected = HybridClassifier.from_pretrained("digits").predict_log_proba(DIGITS.images[::9])
    actual = model(torch.stack(list(map(transform, files))))
    assert (actual.argmax(dim=1).numpy() == expected.argmax(axis=1)).mean() > 0.98
    assert (actual.argmax(dim=1).numpy() == DIGITS.target[::9]).mean() > 0.97
