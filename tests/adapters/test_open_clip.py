"""open_clip as a proposer, against open_clip's own embeddings, logit scale and zero-shot classifier."""

import ast
import copy
import hashlib
import json
import pickle
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import hybridclf_adapters.open_clip
from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownLabelError, UnknownSpecError
from hybridclf.ports import FeatureModel
from hybridclf.proposer import is_trained, resolve_proposer
from hybridclf_adapters._open_clip_features import OpenClipFineTunable
from hybridclf_adapters._open_clip_files import check_quick_gelu
from hybridclf_adapters._open_clip_images import OPTIONS, of_file
from hybridclf_adapters.open_clip import OpenClipProposer, load

NAME = "hybridclf-test-clip"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
LABELS = ["pug", "beagle", "main coon"]
TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "{} in a box"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: open_clip's folder layout, and checkpoints of all kinds."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    state = open_clip.create_model(NAME).state_dict()
    state["logit_scale"] = torch.tensor(3.5)
    save_file(state, folder / "open_clip_model.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "epoch_1.pt")
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def proposer(folder: Path) -> OpenClipProposer:
    return load(f"{NAME}/{folder}/open_clip_model.safetensors", prompts=TEMPLATES).fit(None, LABELS)


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, w, 3), dtype=np.uint8)) for w in (40, 50, 60, 30, 40)]


def model_of(spec: str, path: Path | None = None) -> tuple[Any, Any, Any]:
    model, transform = open_clip.create_model_from_pretrained(spec, pretrained=str(path) if path else None)
    return model.eval(), transform, open_clip.get_tokenizer(spec)


@torch.no_grad()
def by_hand(spec: str, path: Path | None, images: list[Any], labels: list[str], templates: list[str]) -> np.ndarray:
    """Log-probabilities by open_clip alone, as its documentation and the CLIP authors' notebook have them."""
    model, transform, tokenizer = model_of(spec, path)
    text = open_clip.build_zero_shot_classifier(model, tokenizer, labels, templates)
    features = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
    return (model.logit_scale.exp() * features @ text).log_softmax(dim=1).numpy()


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES])
@pytest.mark.parametrize("checkpoint", ["open_clip_model.safetensors", "epoch_1.pt"])
def test_checkpoint_equals_open_clip(
    folder: Path, images: list[Image.Image], checkpoint: str, templates: list[str]
) -> None:
    prompts = templates[0] if len(templates) == 1 else templates
    proposer = load(f"{NAME}/{folder / checkpoint}", prompts=prompts).fit(None, LABELS)
    expected = by_hand(NAME, folder / checkpoint, images, LABELS, templates)
    assert expected.std() > 0.1  # the model does tell images apart
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=2e-5)
    assert proposer.predict(images).tolist() == [LABELS[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(proposer.predict_proba(images).sum(axis=1), 1)


def test_one_template_equals_the_models_own_forward(folder: Path, images: list[Image.Image]) -> None:
    path = folder / "open_clip_model.safetensors"
    model, transform, tokenizer = model_of(NAME, path)
    pixels = torch.stack([transform(image) for image in images])
    with torch.no_grad():
        logits, _ = model.get_logits(pixels, tokenizer([f"a photo of a {label}." for label in LABELS]))
    proposer = load(f"{NAME}/{path}").fit(None, LABELS)
    np.testing.assert_allclose(proposer.predict_log_proba(images), logits.log_softmax(dim=1), rtol=0, atol=2e-5)


def test_folder_brings_its_own_preprocessing(folder: Path, images: list[Image.Image]) -> None:
    spec = f"local-dir:{folder}"
    actual = load(spec, prompts=TEMPLATES).fit(None, LABELS).predict_log_proba(images)
    np.testing.assert_allclose(actual, by_hand(spec, None, images, LABELS, TEMPLATES), rtol=0, atol=2e-5)
    assert abs(actual - by_hand(NAME, folder / "epoch_1.pt", images, LABELS, TEMPLATES)).max() > 1e-3


def test_images_of_any_kind(proposer: OpenClipProposer, images: list[Image.Image]) -> None:
    array = np.stack([np.asarray(images[i]) for i in (0, 4)])
    expected = proposer.predict_log_proba([images[0], images[4]])
    np.testing.assert_allclose(proposer.predict_log_proba(array), expected)
    rotated = images[0].rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    rotated.info["exif"] = exif.tobytes()
    transparent = images[4].copy()
    transparent.putalpha(7)
    np.testing.assert_allclose(proposer.predict_log_proba([rotated, transparent]), expected)
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    eight_bit = (grey / 257).round().astype(np.uint8)
    np.testing.assert_allclose(
        proposer.predict_log_proba([Image.fromarray(grey)]), proposer.predict_log_proba(eight_bit[None])
    )


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8, 3)), np.zeros((2, 64), dtype=np.uint8), ["cat.png"], 3])
def test_no_images(proposer: OpenClipProposer, wrong: Any) -> None:
    with pytest.raises(InvalidInputError):
        proposer.predict_log_proba(wrong)


def test_a_single_image_is_no_list(proposer: OpenClipProposer, images: list[Image.Image]) -> None:
    with pytest.raises(InvalidInputError, match="list of images"):
        proposer.predict_log_proba(images[0])
    assert proposer.predict_log_proba([]).shape == (0, 3)


def test_fit_takes_names_in_order_or_the_labels_of_images(folder: Path, images: list[Image.Image]) -> None:
    proposer = load(f"{NAME}/{folder}/epoch_1.pt")
    with pytest.raises(NotFittedError, match="fit"):
        proposer.predict_log_proba(images)
    assert proposer.fit(None, LABELS).classes_.tolist() == LABELS
    named = proposer.predict_log_proba(images)
    assert proposer.fit(images, ["pug", "pug", "beagle", "main coon", "pug"]).classes_.tolist() == sorted(LABELS)
    np.testing.assert_allclose(proposer.predict_log_proba(images), named[:, [1, 2, 0]], atol=1e-5)
    assert proposer.fit(None, [3, 1]).classes_.tolist() == [3, 1]


def test_names_that_repeat_and_functions_as_templates(folder: Path, images: list[Image.Image]) -> None:
    """open_clip's own names of ImageNet's classes, two of which are there twice, in some of its own templates."""
    names, short = open_clip.IMAGENET_CLASSNAMES, ("itap of a {}.", "art of the {}.")
    templates = [template for template in open_clip.OPENAI_IMAGENET_TEMPLATES if template("{}") in short]
    assert len(templates) == 2
    proposer = load(f"{NAME}/{folder}/epoch_1.pt", prompts=templates, batch_size=500)
    with pytest.warns(UserWarning, match="xoloitzcuintli"):  # cut off, by open_clip too
        proposer.fit(None, names)
    expected = by_hand(NAME, folder / "epoch_1.pt", images, names, templates)
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=2e-5)
    classes = proposer.classes_.tolist()
    assert len(set(classes)) == len(classes) == 1000
    changed = {label: name for label, name in zip(classes, names, strict=True) if label != name}
    assert changed == {
        "missile (#657)": "missile",
        "missile (#744)": "missile",
        "sunglasses (#836)": "sunglasses",
        "sunglasses (#837)": "sunglasses",
    }
    with pytest.warns(UserWarning, match="xoloitzcuintli"):
        again = clone(proposer).fit(None, classes[::-1])  # labels told apart keep their names, wherever they are
    np.testing.assert_allclose(again.predict_log_proba(images)[:, ::-1], expected, rtol=0, atol=2e-5)


def test_functions_may_do_more_than_place_a_name(folder: Path, images: list[Image.Image]) -> None:
    spec, kinds = (
        f"{NAME}/{folder}/epoch_1.pt",
        {"pug": "a pug, a dog", "beagle": "a beagle, a dog", "main coon": "a cat"},
    )
    proposer = load(spec, prompts=kinds.__getitem__).fit(None, LABELS)
    expected = load(spec, prompts="{}").fit(None, list(kinds.values())).predict_log_proba(images)
    np.testing.assert_array_equal(proposer.predict_log_proba(images), expected)
    with pytest.raises(InvalidInputError, match="must return a string, got 3"):
        load(spec, prompts=[len]).fit(None, ["pug", "cat"])


@pytest.mark.parametrize("labels", [None, [], "pug", ["pug", "pug"], ["pug", "Pug"], ["pug ", "pug"], [3, 3, 1]])
def test_labels_that_cannot_be_told_apart(proposer: OpenClipProposer, labels: Any) -> None:
    with pytest.raises(InvalidInputError):
        copy.copy(proposer).fit(None, labels)


def test_text_is_encoded_once_per_label_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf_adapters.open_clip.KEPT_LABEL_SETS", 3)
    proposer = load(f"{NAME}/{folder}/epoch_1.pt", prompts=TEMPLATES, batch_size=4)
    encoded: list[int] = []
    proposer.model.token_embedding.register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
    for labels in (LABELS, LABELS[:2], LABELS, LABELS[:2]):
        proposer.fit(None, labels)
    assert encoded == [4, 4, 1, 4, 2]
    for label in "abc":
        proposer.fit(None, [label, "none"])
    encoded.clear()
    proposer.fit(None, LABELS)  # forgotten by now
    assert encoded == [4, 4, 1]


def test_long_prompts_are_warned_of_once(proposer: OpenClipProposer) -> None:
    long = "cat " * 20
    with pytest.warns(UserWarning, match=r"cut off after 16 tokens.*a photo of a cat cat.*2 more") as caught:
        copy.copy(proposer).fit(None, [long, "pug"])
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match="cut off"), pytest.raises(InvalidInputError, match="read the same"):
        copy.copy(proposer).fit(None, [long + "one", long + "two"])
    copy.copy(proposer).fit(None, ["cat " * 8 + "!", "pug"])  # exactly as long as may be


def test_hugging_face_tokenizer_from_the_folder(folder: Path, images: list[Image.Image], tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "a", "photo", "of", ".", *["pug", "beagle", "cat"]]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    text = {"context_length": 8, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1, "hf_tokenizer_name": "theirs"}
    text |= {"pool_type": "last", "no_causal_mask": True}
    config = {"model_cfg": {**CONFIG, "text_cfg": text, "custom_text": True}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownSpecError, match="no weights"):
        load(f"local-dir:{tmp_path}")
    model = open_clip.create_model(f"local-dir:{tmp_path}")
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    proposer = load(f"local-dir:{tmp_path}").fit(None, ["pug", "beagle"])
    expected = by_hand(f"local-dir:{tmp_path}", None, images, ["pug", "beagle"], ["a photo of a {}."])
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=2e-5)
    with pytest.raises(InvalidInputError, match="'poodle' and 'akita' read the same"):
        proposer.fit(None, ["poodle", "akita"])  # both unknown to the vocabulary
    with pytest.warns(UserWarning, match="cut off after 8 tokens"):
        proposer.fit(None, ["pug", "cat beagle pug cat"])


@pytest.mark.parametrize("prompts", ["a photo", [], ["a {}", "a"], [3], 3, None, {"a {}": 1}])
def test_prompts_need_a_place_for_the_label(prompts: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\{\}"):
        load("RN50/openai", prompts=prompts)


def test_weights_that_need_quick_gelu_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="'open_clip:RN50-quickgelu/openai'"):
        load("RN50/openai")
    refused = []
    for name, tag in open_clip.list_pretrained():
        try:
            check_quick_gelu(name, tag)
        except InvalidInputError as error:
            refused.append((name, tag))
            better = f"{name}-quickgelu"
            assert f"'open_clip:{better}/{tag}'" in str(error)
            assert open_clip.is_pretrained_cfg(better, tag)
            check_quick_gelu(better, tag)
    assert {tag for _, tag in refused} >= {"openai", "dfn5b", "metaclip_fullcc"}
    assert ("ViT-B-32", "laion2b_s34b_b79k") not in refused


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("RN5/openai", "did you mean 'RN50'"),
        ("openai", "MODEL/PRETRAINED"),
        ("RN50", "RN50 alone names no weights; type 'open_clip:RN50/TAG' with one of its tags .*'cc12m'.*RN50/FILE'"),
        ("RN50/nonesuch", "neither a checkpoint file nor a pretrained tag of RN50.*'openai'"),
        ("RN50//no/such/file.safetensors", "neither a checkpoint file"),
        ("local-dir:/no/such/folder", "no open_clip_config.json in /no/such/folder"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(UnknownSpecError, match=message):
        load(spec)


def test_a_bare_folder_or_file_says_how_to_type_it(folder: Path) -> None:
    with pytest.raises(UnknownSpecError, match=f"open_clip:local-dir:{folder}"):
        load(str(folder))
    with pytest.raises(UnknownSpecError, match=f"is a file; type 'open_clip:MODEL/{folder}/epoch_1.pt'"):
        load(f"{folder}/epoch_1.pt")


def test_checkpoints_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file(weights | {"visual.conv1.weight": torch.zeros(8, 3, 4, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(SavedModelError, match=r"conv1\.weight.*name the model that the weights were trained with") as e:
        load(f"{NAME}/{tmp_path}/other.safetensors")
    save_file({name: value for name, value in weights.items() if "visual" not in name}, tmp_path / "text.safetensors")
    with pytest.raises(SavedModelError, match=r"Missing key.*name the model") as missing:
        load(f"{NAME}/{tmp_path}/text.safetensors")
    assert "\n" not in f"{e.value}{missing.value}" and len(str(missing.value)) < 700
    for file, content in {"empty.pt": "", "text.pt": "no weights", "text.bin": "text"}.items():
        (tmp_path / file).write_text(content)
        with pytest.raises(SavedModelError, match=f"the weights of .*{file}' are damaged"):
            load(f"{NAME}/{tmp_path}/{file}")


# --- how images are prepared ------------------------------------------------------------------------------------------

NO_SCALING = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear", "resize_mode": "squash"}
INCEPTIONS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "longest"}


def prepared(folder: Path, images: list[Image.Image], **options: Any) -> torch.Tensor:
    """Images as open_clip prepares them for the small model if it is told so."""
    path = str(folder / "open_clip_model.safetensors")
    _, transform = open_clip.create_model_from_pretrained(NAME, pretrained=path, **options)
    return torch.stack([transform(image) for image in images])


def seen_by(proposer: OpenClipProposer, images: list[Image.Image]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = proposer.model.visual.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    proposer.fit(None, LABELS).predict_log_proba(images)
    handle.remove()
    return torch.cat(seen)


def as_options(config: dict[str, Any]) -> dict[str, Any]:
    names = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"}
    return {names.get(key, "image_resize_mode"): value for key, value in config.items() if key != "hf_hub"}


def test_checkpoints_are_shown_images_as_all_tags_of_their_model_want_them(
    folder: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, {"one": NO_SCALING, "two": dict(NO_SCALING)})
    proposer = load(f"{NAME}/{folder}/open_clip_model.safetensors")
    expected = prepared(folder, images, **as_options(NO_SCALING))
    torch.testing.assert_close(seen_by(proposer, images), expected)
    assert abs(expected - prepared(folder, images)).max() > 0.5  # which OpenAI's numbers would have made
    assert not caplog.records


def test_checkpoints_named_after_a_tag_are_its(
    folder: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tags = {"laion2b": NO_SCALING, "laion2b_e16": INCEPTIONS}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tags)
    for file, config in ((f"{NAME}-laion2b.safetensors", NO_SCALING), ("Laion2B-E16_v2.safetensors", INCEPTIONS)):
        shutil.copy(folder / "open_clip_model.safetensors", folder / file)
        torch.testing.assert_close(
            seen_by(load(f"{NAME}/{folder / file}"), images), prepared(folder, images, **as_options(config))
        )
    assert not caplog.records


def test_what_is_assumed_of_a_checkpoint_is_said_once(
    folder: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = f"{NAME}/{folder}/open_clip_model.safetensors"
    tags = {
        "one": INCEPTIONS,
        "two": NO_SCALING,
        "three": NO_SCALING | {"interpolation": "bicubic"},
        "four": NO_SCALING,
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tags)
    expected = prepared(folder, images, **as_options(NO_SCALING))  # as most of them have it
    torch.testing.assert_close(seen_by(load(spec), images), expected)
    (message,) = caplog.messages
    assert "assumed image_mean=(0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0), interpolation='bilinear'" in message
    assert "as most pretrained tags" in message and "'one', 'two', 'three', 'four'" in message
    caplog.clear()
    load(spec, image_mean=0, image_std=1, interpolation="bilinear")
    assert "assumed resize_mode='squash'," in caplog.text
    caplog.clear()
    load(spec, resize_mode="squash", image_mean=0, image_std=1, interpolation="bilinear")
    assert not caplog.records
    monkeypatch.delitem(open_clip.pretrained._PRETRAINED, NAME)
    torch.testing.assert_close(seen_by(load(spec), images), prepared(folder, images))
    assert "as OpenAI's models have it" in caplog.text


def test_every_pretrained_model_of_open_clips_as_a_file(caplog: pytest.LogCaptureFixture) -> None:
    """By the name of its file, or that of the hub's cache; without it where all tags agree."""
    for name, tag in open_clip.list_pretrained():
        config, names = open_clip.get_pretrained_cfg(name, tag), ("mean", "std", "interpolation", "resize_mode")
        expected = {option: config[key] for option, key in zip(OPTIONS, names, strict=True)}
        assert of_file(name, f"models/{name}_{tag}.safetensors", {}) == expected
        if config["url"]:
            assert of_file(name, f"models/{Path(config['url']).name}", {}) == expected
        repository = config["hf_hub"].rpartition("/")[0].replace("/", "--")
        assert of_file(name, f"hub/models--{repository}/snapshots/0123/open_clip_model.safetensors", {}) == expected
    assert not caplog.records
    mobile, siglip = (of_file(name, "mine.pt", {}) for name in ("MobileCLIP2-S0", "ViT-B-16-SigLIP"))
    assert mobile["image_mean"] == (0, 0, 0) and mobile["image_std"] == (1, 1, 1)
    assert mobile["interpolation"] == "bilinear" and siglip["resize_mode"] == "squash"
    assert siglip["image_mean"] == siglip["image_std"] == (0.5, 0.5, 0.5)
    assert not caplog.records
    assert of_file("ViT-H-14", "mine.pt", {})["resize_mode"] == "shortest"
    assert "assumed resize_mode='shortest', as most pretrained tags of ViT-H-14" in caplog.text


@pytest.mark.parametrize("form", ["{name}/{folder}/open_clip_model.safetensors", "local-dir:{folder}"])
def test_options_come_before_everything(folder: Path, images: list[Image.Image], form: str) -> None:
    spec = form.format(name=NAME, folder=folder)
    options = {"image_mean": 0, "image_std": [0.5, 1, 2], "interpolation": "bicubic", "resize_mode": "longest"}
    expected = prepared(
        folder,
        images,
        image_mean=(0.0, 0.0, 0.0),
        image_std=(0.5, 1.0, 2.0),
        image_interpolation="bicubic",
        image_resize_mode="longest",
    )
    torch.testing.assert_close(seen_by(load(spec, **options), images), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_mean": "0.5"}, "image_mean must be a number, or three"),
        ({"image_mean": (0.5, 0.5)}, "image_mean must be a number, or three"),
        ({"image_mean": [0.5, None, 0.5]}, "image_mean must be a number, or three"),
        ({"image_std": float("nan")}, "image_std must be a number, or three"),
        ({"image_std": 0}, "image_std must be above 0"),
        ({"image_std": (1, -1, 1)}, "image_std must be above 0"),
        ({"interpolation": "nearest"}, "interpolation must be one of 'bicubic', 'bilinear', got 'nearest'"),
        ({"resize_mode": "crop"}, "resize_mode must be one of 'shortest', 'longest', 'squash', got 'crop'"),
        ({"cache_dir": 3}, "cache_dir must be the path of a folder"),
        ({"cache_dir": __file__}, "cache_dir must be the path of a folder"),
        ({"revision": 3}, "revision must be a branch, tag or commit"),
        ({"revision": ""}, "revision must be a branch, tag or commit"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load("RN50-quickgelu/openai", **options)


def test_an_image_size_that_is_not_the_checkpoints(folder: Path, images: list[Image.Image]) -> None:
    """Position embeddings are interpolated, and images come in the model's size."""
    name = f"{NAME}-48"
    larger = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": 48}}
    (folder / f"{name}.json").write_text(json.dumps(larger))
    open_clip.add_model_config(folder / f"{name}.json")
    path = folder / "epoch_1.pt"
    proposer = load(f"{name}/{path}", prompts=TEMPLATES).fit(None, LABELS)
    assert seen_by(proposer, images).shape == (5, 3, 48, 48)
    expected = by_hand(name, path, images, LABELS, TEMPLATES)
    np.testing.assert_allclose(proposer.predict_log_proba(images), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "file", "better"),
    [
        ("RN50", "rn50-openai.safetensors", "RN50-quickgelu"),
        ("ViT-H-14", "dfn5b.pt", "ViT-H-14-quickgelu"),
        ("ViT-B-32-quickgelu", "vit-b-32-laion2b_s34b_b79k.pt", "ViT-B-32"),
    ],
)
def test_files_that_need_another_activation_are_refused_by_name(
    name: str, file: str, better: str, tmp_path: Path
) -> None:
    (tmp_path / file).touch()
    with pytest.raises(InvalidInputError, match=f"type 'open_clip:{better}/{tmp_path}/{file}'"):
        load(f"{name}/{tmp_path}/{file}")


@pytest.mark.parametrize(
    "damage",
    [
        {"preprocess_cfg": {"interpolation": "nearest"}},
        {"preprocess_cfg": {"resize_mode": "crop"}},
        {"model_cfg": {**CONFIG, "nonsense": 1}},
        {"model_cfg": {"embed_dim": 16}},
    ],
)
def test_configurations_that_are_damaged(folder: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    config = json.loads((copied / "open_clip_config.json").read_text()) | damage
    (copied / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(SavedModelError, match="cannot be loaded"):
        load(f"local-dir:{copied}")


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(folder: Path, tmp_path: Path) -> Path:
    """A hub's cache with one repository: its main branch, and an older revision of other weights."""
    repository = tmp_path / "cache" / "models--somebody--tiny"
    state = load_file(folder / "open_clip_model.safetensors")
    for revision, scale in (("main", 3.5), ("old", 1.0)):
        commit = hashlib.sha1(revision.encode()).hexdigest()
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        shutil.copy(folder / "open_clip_config.json", snapshot)
        save_file(state | {"logit_scale": torch.tensor(scale)}, snapshot / "open_clip_model.safetensors")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    return tmp_path / "cache"


@pytest.mark.parametrize("spec", ["hf-hub:somebody/tiny", f"{NAME}/mine"])
def test_what_is_cached_needs_no_network(
    spec: str, cached: Path, folder: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = {"hf_hub": "somebody/tiny/", **NO_SCALING}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, {"mine": tag})
    new = load(spec, cache_dir=cached).fit(None, LABELS)
    old = load(spec, cache_dir=str(cached), revision="old").fit(None, LABELS)
    assert [model.model.logit_scale.item() for model in (new, old)] == [3.5, 1.0]
    if spec.startswith("hf-hub:"):
        expected = load(f"local-dir:{folder}").fit(None, LABELS).predict_log_proba(images)
        np.testing.assert_array_equal(new.predict_log_proba(images), expected)
    else:
        torch.testing.assert_close(seen_by(new, images), prepared(folder, images, **as_options(NO_SCALING)))
    with pytest.raises(SavedModelError, match="cannot be loaded"):
        load(spec, cache_dir=cached, revision="newer")


def test_revisions_are_of_what_is_on_the_hub(folder: Path) -> None:
    for spec in (f"local-dir:{folder}", f"{NAME}/{folder}/epoch_1.pt"):
        with pytest.raises(InvalidInputError, match=r"is for models on the hub.*leave it out"):
            load(spec, revision="main")


@pytest.mark.parametrize(
    "spec",
    ["RN50-quickgelu/openai", "ViT-B-16-SigLIP/webli", "hf-hub:hybridclf/no-such-model", "roberta-ViT-B-32/FILE"],
)
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_one_message_says_what_to_type(
    spec: str,
    offline: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """And nothing is tried again, which would take a minute: the hub's client logs that it does."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    spec = spec.replace("FILE", str(folder / "laion2b_s12b_b32k.pt"))
    (folder / "laion2b_s12b_b32k.pt").touch()
    why = "HF_HUB_OFFLINE is set" if offline else "cannot be reached"
    message = rf"'{spec}' cannot be loaded: it needs a download.*{why}.*MODEL/FILE.*local-dir:FOLDER.*cache_dir="
    with pytest.raises(SavedModelError, match=message) as caught:
        load(spec, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert not caplog.records and capfd.readouterr() == ("", "")
    assert offline == huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(SavedModelError, match=r"'hf-hub:somebody/tiny' cannot be loaded: .*open_clip_config\.json"):
            load("hf-hub:somebody/tiny", cache_dir=tmp_path, revision="v2")
        server.shutdown()
    assert asked[1:] == ["/somebody/tiny/resolve/v2/open_clip_config.json"]


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_pickles_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(SavedModelError, match=r"safetensors\.torch\.save_file"):
        load(f"{NAME}/trap.pt")
    assert not Path("trapped").exists()
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(SavedModelError, match="pickled"):
        load(f"{NAME}/module.pt")


@pytest.mark.parametrize("options", [{"precision": "fp64"}, {"batch_size": 0}, {"batch_size": 1.5}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        load("RN50-quickgelu/openai", **options)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close(
    folder: Path, proposer: OpenClipProposer, images: list[Image.Image], precision: str
) -> None:
    low = load(f"{NAME}/{folder}/epoch_1.pt", prompts=TEMPLATES, precision=precision, device="cpu").fit(None, LABELS)
    assert low.model.visual.conv1.weight.dtype == low.dtype != torch.float32
    difference = abs(low.predict_log_proba(images) - proposer.predict_log_proba(images)).max()
    assert 0 < difference < 0.3


def test_batches_change_nothing_but_rounding(folder: Path, proposer: OpenClipProposer, images: list[Any]) -> None:
    for batch_size in (1, 2):
        other = load(f"{NAME}/{folder}/epoch_1.pt", prompts=TEMPLATES, batch_size=batch_size).fit(None, LABELS)
        np.testing.assert_allclose(
            other.predict_log_proba(images), proposer.predict_log_proba(images), rtol=0, atol=2e-5
        )


def test_batches_halve_when_memory_runs_out(folder: Path, proposer: OpenClipProposer, images: list[Any]) -> None:
    """And stay small: images and prompts share the device."""
    small = load(f"{NAME}/{folder}/epoch_1.pt", prompts=TEMPLATES, batch_size=16)
    seen: list[int] = []

    def crowded(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    small.model.visual.register_forward_pre_hook(crowded)
    logs = small.fit(None, LABELS).predict_log_proba(images)
    np.testing.assert_allclose(logs, proposer.predict_log_proba(images), rtol=0, atol=2e-5)
    assert seen == [5, 5, 4, 2, 2, 1]
    small.predict_log_proba(images)
    assert seen[6:] == [2, 2, 1]


def test_copies(proposer: OpenClipProposer, images: list[Image.Image]) -> None:
    expected = proposer.predict_log_proba(images)
    assert is_trained(proposer) and resolve_proposer(proposer).model is proposer.model
    twin = clone(HybridClassifier(proposer=proposer)).proposer
    assert twin is not proposer and twin.model is proposer.model
    np.testing.assert_array_equal(twin.predict_log_proba(images), expected)
    assert twin.fit(None, LABELS[:2]).predict_log_proba(images).shape == (5, 2)
    np.testing.assert_array_equal(proposer.predict_log_proba(images), expected)
    for other in (copy.deepcopy(proposer), pickle.loads(pickle.dumps(proposer))):
        np.testing.assert_array_equal(other.predict_log_proba(images), expected)
        np.testing.assert_array_equal(other.fit(None, LABELS).predict_log_proba(images), expected)


def test_in_a_hybrid_classifier(folder: Path, gaussian_denoiser: Any) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    denoiser = gaussian_denoiser({label: np.full((8, 8, 3), 60.0 * i) for i, label in enumerate(LABELS)}, s=50.0)
    proposer = load(f"{NAME}/{folder}/epoch_1.pt")
    clf = HybridClassifier(proposer=proposer, denoiser=denoiser, top_k=2, random_state=0).fit(None, LABELS)
    prior = clf.proposer_.predict_proba(images)
    posterior = clf.predict_proba(images)
    assert clf.classes_.tolist() == LABELS and posterior.shape == (6, 3)
    rest = np.argmin(prior, axis=1)[:, None]
    np.testing.assert_allclose(np.take_along_axis(posterior, rest, 1), np.take_along_axis(prior, rest, 1))


def test_open_clip_is_imported_only_when_a_model_is_loaded() -> None:
    source = Path(hybridclf_adapters.open_clip.__file__).read_text(encoding="utf-8")
    imported = [
        name
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    ]
    assert "torch" in imported and not any(name.startswith(("open_clip", "timm")) for name in imported)


# --- a classifier on its features -------------------------------------------------------------------------------------


def test_a_classifier_on_features_is_saved_with_the_model(
    proposer: OpenClipProposer, images: list[Image.Image], tmp_path: Path
) -> None:
    features = proposer.features(images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert proposer.feature_side == 32
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 9, (3, features.shape[1])), rng.normal(size=3)
    tunable = proposer.with_head(weight, bias, ["b", "a", "c"])
    spec = tunable.save(tunable.network, tmp_path / "my model")
    assert spec == f"open_clip:local-dir:{tmp_path / 'my model'}"
    loaded = load(spec.removeprefix("open_clip:"))
    expected = torch.from_numpy(features @ weight.T + bias).log_softmax(dim=1)
    np.testing.assert_allclose(loaded.predict_log_proba(images), expected, atol=1e-4)
    two = clone(loaded).fit(None, ["a", "b"])
    np.testing.assert_allclose(two.predict_log_proba(images), expected[:, [1, 0]].log_softmax(dim=1), atol=1e-4)
    assert loaded.classes_.tolist() == ["b", "a", "c"]
    with pytest.raises(UnknownLabelError, match="no class 'd'; it has 'b', 'a', 'c'"):
        loaded.fit(None, ["a", "d"])


def test_a_classifier_follows_its_model_to_another_device(proposer: OpenClipProposer, tmp_path: Path) -> None:
    tunable = proposer.with_head(np.zeros((2, 16)), np.zeros(2), ["a", "b"])
    spec = tunable.save(tunable.network, tmp_path / "x")
    loaded = load(spec.removeprefix("open_clip:"))
    loaded.model.to("meta")
    assert loaded._logits(torch.zeros(3, 3, 32, 32, device="meta")).device.type == "meta"


def test_a_damaged_classifier(proposer: OpenClipProposer, tmp_path: Path) -> None:
    tunable = proposer.with_head(np.zeros((2, 16)), np.zeros(2), ["a", "b"])
    spec = tunable.save(tunable.network, tmp_path / "x").removeprefix("open_clip:")
    (tmp_path / "x" / "head.json").write_text('["a"]')
    with pytest.raises(SavedModelError, match="is damaged: 1 names of 2 classes"):
        load(spec)
    (tmp_path / "x" / "head.json").unlink()
    with pytest.raises(SavedModelError, match="is damaged"):
        load(spec)


def test_a_text_tower_of_the_hub_is_refused(proposer: OpenClipProposer) -> None:
    other = copy.copy(proposer)
    other.config = CONFIG | {"text_cfg": {"hf_model_name": "roberta-base"}}
    with pytest.raises(InvalidInputError, match="'roberta-base' on the hub, without which"):
        other.with_head(np.zeros((2, 16)), np.zeros(2), ["a", "b"])
    with pytest.raises(InvalidInputError, match="'roberta-base' on the hub"):
        other.check_head()


def test_a_configuration_cannot_have_code_run(folder: Path, tmp_path: Path) -> None:
    """transformers would run a folder's Python, if a configuration could tell it to trust it."""
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    config = json.loads((copied / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": str(copied),
        "tokenizer_kwargs": {"clean": "whitespace", "trust_remote_code": True},
    }
    (copied / "open_clip_config.json").write_text(json.dumps(config))
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertTokenizer as Evil\n"
    (copied / "evil.py").write_text(code)
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (copied / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InvalidInputError, match="gives its tokenizer the option 'trust_remote_code', and only 'clean'"):
        load(f"local-dir:{copied}")
    assert not (tmp_path / "ran").exists()


def test_the_whole_image_is_seen_by_a_new_classifier(proposer: OpenClipProposer, tmp_path: Path) -> None:
    """Stretched to the model's size, also where the folder is used by itself."""
    pixels = np.zeros((32, 96, 3), dtype=np.uint8)
    pixels[:, :32] = 255  # what a crop of the middle leaves out
    left = Image.fromarray(pixels)
    features = proposer.features([left])
    np.testing.assert_allclose(
        features, proposer.features([left.resize((32, 32), Image.Resampling.BICUBIC)]), atol=1e-5
    )
    weight = np.random.default_rng(0).normal(0, 9, (2, features.shape[1]))
    tunable = proposer.with_head(weight, np.zeros(2), ["a", "b"])
    spec = tunable.save(tunable.network, tmp_path / "model").removeprefix("open_clip:")
    expected = torch.from_numpy(features @ weight.T).log_softmax(dim=1)
    np.testing.assert_allclose(load(spec).predict_log_proba([left]), expected, atol=1e-4)


def test_its_image_tower_may_be_trained_further(proposer: OpenClipProposer, tmp_path: Path) -> None:
    """The text tower stays as it is."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(3)]
    images = [image.resize((48, 48), Image.Resampling.BICUBIC) for image in small]
    features = proposer.features(images)
    weight = rng.normal(0, 9, (2, features.shape[1]))
    tunable = proposer.with_head(weight, np.ones(2), ["a", "b"])
    pixels = torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2).float()
    expected = features @ weight.T + 1
    with torch.no_grad():
        np.testing.assert_allclose(tunable.network(pixels), expected, atol=0.02 * np.ptp(expected))
    rates = tunable.learning_rates(0.5, 0.0)
    assert set(rates) == {name for name, _ in tunable.network.named_parameters()}
    of = {name.removeprefix("network."): rate for name, rate in rates.items()}
    assert of["head.weight"] == of["visual.proj"] == of["visual.ln_post.weight"] == 1
    assert of["visual.transformer.resblocks.0.mlp.c_fc.weight"] == 0.5
    assert of["visual.class_embedding"] == of["visual.conv1.weight"] == of["visual.ln_pre.bias"] == 0.25
    trained = copy.deepcopy(tunable.network)
    trained(pixels).square().sum().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.sub_(0.01 * parameter.grad)
    loaded = load(tunable.save(trained, tmp_path / "trained").removeprefix("open_clip:"))
    with torch.no_grad():
        answers = loaded.predict_log_proba(images)
        np.testing.assert_allclose(answers, trained(pixels).log_softmax(dim=1), atol=0.02 * np.ptp(answers))
    own, kept = proposer.model.state_dict(), loaded.model.state_dict()
    assert {name.split(".")[0] for name in own if not torch.equal(own[name], kept[name])} == {"visual"}


def test_a_model_with_a_classifier_has_features_too(proposer: OpenClipProposer, tmp_path: Path) -> None:
    """So that a trained folder may be trained further, for other classes."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8))
    tunable = proposer.with_head(np.zeros((2, 16)), np.zeros(2), ["a", "b"])
    loaded = load(tunable.save(tunable.network, tmp_path / "one").removeprefix("open_clip:"))
    assert isinstance(loaded, FeatureModel) and loaded.feature_side == 32
    np.testing.assert_allclose(loaded.features([image]), proposer.features([image]), atol=1e-6)
    loaded.check_head()
    again = loaded.with_head(np.zeros((3, 16)), np.array([0.0, 9.0, 0.0]), ["a", "b", "c"])
    other = load(again.save(again.network, tmp_path / "two").removeprefix("open_clip:"))
    assert other.predict([image]).tolist() == ["b"]


@pytest.mark.parametrize(
    ("vision", "rates"),
    [
        (
            {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
            {"conv1": 0.5**5, "layer1.0.conv1": 0.5**4, "layer4.0.conv1": 0.5, "attnpool.c_proj": 1.0},
        ),
        (
            {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
            {"trunk.patch_embed.proj": 0.5**7, "trunk.blocks.0.mlp.fc1": 0.5**6, "head.proj": 1.0},
        ),
        (
            {"image_size": [48, 96], "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
            {"trunk.conv1.0": 0.5**5, "trunk.layer1.0.conv1": 0.5**4, "head.proj": 1.0},
        ),
    ],
)
def test_layers_of_other_towers(vision: dict[str, Any], rates: dict[str, float]) -> None:
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": CONFIG["text_cfg"]}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config)
    size = vision["image_size"]
    model.visual.preprocess_cfg = {"size": size, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    tunable = OpenClipFineTunable(model, config, np.zeros((2, 16)), np.zeros(2), ["a", "b"])
    found = tunable.learning_rates(0.5, 0.0)
    assert {name: found[f"network.visual.{name}.weight"] for name in rates} == rates
    assert tunable.network(torch.zeros(1, 3, 40, 40)).shape == (1, 2)
