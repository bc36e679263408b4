"""open_clip as a proposer, against open_clip's own embeddings, logit scale and zero-shot classifier."""

import ast
import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import hybridclf_adapters.open_clip
from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf.proposing import is_trained, resolve_proposer
from hybridclf_adapters.open_clip import OpenClipProposer, _check_quick_gelu, load

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


@pytest.mark.parametrize("labels", [None, [], "pug", ["pug", "pug"], ["pug", "Pug"], ["pug ", "pug"]])
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


@pytest.mark.parametrize("prompts", ["a photo", [], ["a {}", "a"], [3]])
def test_prompts_need_a_place_for_the_label(prompts: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\{\}"):
        load("RN50/openai", prompts=prompts)


def test_weights_that_need_quick_gelu_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="'open_clip:RN50-quickgelu/openai'"):
        load("RN50/openai")
    refused = []
    for name, tag in open_clip.list_pretrained():
        try:
            _check_quick_gelu(name, tag)
        except InvalidInputError as error:
            refused.append((name, tag))
            better = f"{name}-quickgelu"
            assert f"'open_clip:{better}/{tag}'" in str(error)
            assert open_clip.is_pretrained_cfg(better, tag)
            _check_quick_gelu(better, tag)
    assert {tag for _, tag in refused} >= {"openai", "dfn5b", "metaclip_fullcc"}
    assert ("ViT-B-32", "laion2b_s34b_b79k") not in refused


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("RN5/openai", "did you mean 'RN50'"),
        ("openai", "MODEL/PRETRAINED"),
        ("RN50", "cc12m"),
        ("RN50/nonesuch", "neither a checkpoint file nor a pretrained tag of RN50.*'openai'"),
        ("RN50//no/such/file.safetensors", "neither a checkpoint file"),
        ("local-dir:/no/such/folder", "no open_clip_config.json in /no/such/folder"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(UnknownSpecError, match=message):
        load(spec)


def test_a_bare_folder_says_how_to_type_it(folder: Path) -> None:
    with pytest.raises(UnknownSpecError, match=f"open_clip:local-dir:{folder}"):
        load(str(folder))


def test_what_cannot_be_downloaded() -> None:
    with pytest.raises(SavedModelError, match=r"'hf-hub:hybridclf/no-such-model' cannot be loaded: .*download"):
        load("hf-hub:hybridclf/no-such-model")


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
