"""Training behind a model of open_clip in a folder, or a checkpoint of a timm architecture: from the spec to a pair."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import load_state_dict
from torchvision.transforms.functional import InterpolationMode, normalize, resize, to_tensor

from hybridclf import HybridClassifier, train_pair
from hybridclf.data.image_files import open_image
from hybridclf.errors import HybridClfError, TrainingError
from hybridclf.pair_training import pretrained_tier_1, run
from hybridclf.training.trainer import Trainer
from tests.pair_training.squares import COLOURS

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PREPARATION = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "shortest"}
pytestmark = pytest.mark.usefixtures("frozen")

SETTINGS: dict[str, Any] = {"minutes": 0.4, "image_size": 16, "validation_fraction": 0.2}


def pictures(data: Path) -> list[Image.Image]:
    return [open_image(path) for path in sorted(data.glob("*/1*.png"))]


# --- the given networks, and what comes of them by other means --------------------------------------------------------


def save_clip(folder: Path, seed: int = 0, **text: Any) -> None:
    """Write a small open_clip model of random weights, and how it has images prepared."""
    folder.mkdir()
    torch.manual_seed(seed)
    save_file(open_clip.model.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")
    described = {"model_cfg": CLIP | {"text_cfg": CLIP["text_cfg"] | text}, "preprocess_cfg": PREPARATION}
    (folder / "open_clip_config.json").write_text(json.dumps(described))


def save_checkpoint(path: Path, seed: int = 0) -> None:
    """Write a checkpoint of random weights as timm's train.py does."""
    torch.manual_seed(seed)
    weights = timm.create_model("test_resnet", num_classes=5).state_dict()
    torch.save({"arch": "test_resnet", "state_dict": weights}, path)


def stretched(images: list[Image.Image], side: int, mean: Any, std: Any) -> torch.Tensor:
    """Input of a network: all of each image, of the network's own size and statistics."""
    whole = [resize(image, [side, side], InterpolationMode.BILINEAR) for image in images]
    return torch.stack([normalize(to_tensor(image), mean, std) for image in whole])


def clip_logits(given: Path, saved: Path, images: list[Image.Image]) -> torch.Tensor:
    """Logits of a model's normalised features and the saved classifier."""
    head = load_file(saved / "head.safetensors")
    model = open_clip.create_model(f"local-dir:{given}").eval()
    pixels = stretched(images, 32, PREPARATION["mean"], PREPARATION["std"])
    return model.encode_image(pixels, normalize=True) @ head["weight"].T + head["bias"]


def timm_logits(given: Path, saved: Path, images: list[Image.Image]) -> torch.Tensor:
    """Logits of a checkpoint's weights, but for the classifier's, which are the saved ones."""
    head = {name: value for name, value in load_file(saved / "model.safetensors").items() if name.startswith("fc.")}
    model = timm.create_model("test_resnet", num_classes=3).eval()
    model.load_state_dict(load_state_dict(str(given)) | head)
    return model(stretched(images, 160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


class Kind(NamedTuple):
    """A kind of spec, from the folder that has the network.

    Attributes
    ----------
    save : function
        Writes the network to a path, of another seed than 0 if asked for.
    name : str
        Name of that path.
    spec : str
        Spec string of it.
    side : int
        Side of the images of 64 pixels in training, in which the network's side is no less.
    logits : function
        From the network, the saved one with its classifier, and images to the logits expected of the saved one.
    """

    save: Callable[..., None]
    name: str
    spec: str
    side: int
    logits: Callable[[Path, Path, list[Image.Image]], torch.Tensor]


KINDS = {
    "open_clip": Kind(save_clip, "clip", "open_clip:local-dir:clip", 32, clip_logits),
    "timm": Kind(save_checkpoint, "own.pth", "timm:test_resnet/own.pth", 64, timm_logits),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def trained(kind: Kind, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The given network, which is in another place by now, and the folder of a training."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kind.save(Path(kind.name))
        train_pair(data, "out", proposer=kind.spec, **SETTINGS)
    return (folder / kind.name).rename(folder / "set aside"), folder / "out"


def test_tier_1_is_the_given_network_with_a_new_classifier(
    kind: Kind, trained: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = trained
    monkeypatch.chdir(tmp_path)
    clf, images = HybridClassifier.load(out), pictures(data)
    assert clf.classes_.tolist() == clf.proposer_.classes_.tolist() == sorted(COLOURS)
    assert clf.image_shape_ == (kind.side, kind.side, 3) and clf.denoiser_.shape == (3, 16, 16)
    with torch.no_grad():
        expected = kind.logits(given, out / "proposer", images).log_softmax(dim=1)
    assert expected.std() > 0.3
    np.testing.assert_allclose(clf.proposer_.predict_log_proba(images), expected, rtol=0, atol=1e-3)
    labels = [path.parent.name for path in sorted(data.glob("*/1*.png"))]
    assert (clf.predict(images) == labels).mean() > 0.9
    moved = shutil.copytree(out, tmp_path / "moved")
    np.testing.assert_array_equal(HybridClassifier.load(moved).predict_proba(images), clf.predict_proba(images))


@pytest.mark.parametrize("kind", ["open_clip", pytest.param("timm", marks=pytest.mark.slow)], indirect=True)
def test_resumed_from_another_folder_it_equals_an_uninterrupted_one(
    kind: Kind, trained: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer._advance

    def stop(self: Trainer) -> torch.Tensor:
        if self.step == 11:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.chdir(tmp_path)
    kind.save(Path(kind.name))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", stop)
        with pytest.raises(KeyboardInterrupt):
            train_pair(data, "out", proposer=kind.spec, **SETTINGS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = (tmp_path / kind.name).rename(tmp_path / "kept")
    kind.save(tmp_path / kind.name, seed=1)
    with pytest.raises(
        TrainingError, match=f"{kind.name}' are others than at the start.*put those back, or start anew"
    ):
        train_pair(data, tmp_path / "out", resume=True)
    shutil.rmtree(tmp_path / kind.name) if given.is_dir() else (tmp_path / kind.name).unlink()
    given.rename(tmp_path / kind.name)
    train_pair(data, tmp_path / "out", resume=True)
    own = [f"proposer/{path.name}" for path in (trained[1] / "proposer").iterdir()]
    assert len(own) >= 2
    for name in ("model.json", "denoiser.safetensors", *own):
        assert (tmp_path / "out" / name).read_bytes() == (trained[1] / name).read_bytes()


def test_an_image_tower_is_fine_tuned(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the text tower stays."""
    monkeypatch.setattr(pretrained_tier_1, "STEP_COST", 2.0)
    monkeypatch.setattr(pretrained_tier_1, "seconds_per_image", lambda *_: 0.01)
    monkeypatch.setattr(pretrained_tier_1, "MIN_STEPS", 1)
    monkeypatch.setattr(run, "steps_in", lambda *_: 15)
    save_clip(tmp_path / "clip")
    settings = SETTINGS | {"validation_fraction": 0.5}
    train_pair(data, tmp_path / "out", proposer=f"open_clip:local-dir:{tmp_path / 'clip'}", **settings)
    tuned = json.loads((tmp_path / "out" / "training" / "log.json").read_text())["fine_tuning"]
    assert tuned["kept"] and tuned["after"] < 0.9 * tuned["before"]
    saved, images = tmp_path / "out" / "proposer", pictures(data)
    before, after = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "clip", saved))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"visual"}
    with torch.no_grad():
        expected = clip_logits(saved, saved, images).log_softmax(dim=1)
    clf = HybridClassifier.load(tmp_path / "out")
    np.testing.assert_allclose(clf.proposer_.predict_log_proba(images), expected, rtol=0, atol=1e-3)


# --- what cannot be had -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:local-dir:nowhere", "no open_clip_config.json in .*nowhere; give the folder"),
        ("open_clip:clip", "'clip' is a folder; type 'open_clip:local-dir:clip'"),
        ("open_clip:ViT-B-32", "ViT-B-32 alone names no weights; type 'open_clip:ViT-B-32/TAG' with one of its tags"),
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            "needs a download, HF_HUB_OFFLINE is set.*type 'open_clip:MODEL/FILE'",
        ),
        ("open_clip:local-dir:hub", "needs a download, HF_HUB_OFFLINE is set.*type 'open_clip:MODEL/FILE'"),
        ("timm:test_vit/own.pth", "VisionTransformer.*name the model that the weights were trained with"),
        ("timm:test_resnet/text.pth", "the weights of 'test_resnet/.*text.pth' are damaged"),
        ("timm:test_resnett/own.pth", "no model 'test_resnett'; did you mean 'test_resnet'"),
        ("timm:own.pth", "'own.pth' is a file; type 'timm:MODEL/own.pth'"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(
    spec: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    save_clip(tmp_path / "clip")
    save_clip(tmp_path / "hub", hf_model_name="roberta-base")
    save_checkpoint(tmp_path / "own.pth")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(HybridClfError, match=message) as caught:
        train_pair(data, "out", proposer=spec, **SETTINGS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
