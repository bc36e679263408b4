"""Tuning a class-conditional network: its classes have embeddings in the place of words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hybridclf import FixedTrials, HybridClassifier, InvalidInputError, InvalidTypeError, SavedModelError, tune
from hybridclf.pair_training import run as training_run
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_classes import ddpm, latent, save_named
from tests.adapters.tiny_diffusers import dit, save
from tests.adapters.tiny_pair import specs_of

LABELS = ["dog", "hen"]
FOLDERS = {"ddpm": ddpm, "latent": latent, "dit": dit}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(name)`: a saved pipeline, not to be changed."""
    root = tmp_path_factory.mktemp("classes")

    def of(name: str) -> Path:
        if not (root / name).exists():
            (save if name == "dit" else save_named)(FOLDERS[name], root / name)
        return root / name

    return of


def pictures(n: int) -> tuple[list[Image.Image], np.ndarray]:
    """n dark pictures, and n bright ones."""
    y = np.repeat(LABELS, n)
    values = np.random.default_rng(0).integers(0, 40, (2 * n, 8, 8, 3)) + 200 * (y == "hen")[:, None, None, None]
    return [Image.fromarray(x.astype(np.uint8)) for x in values], y


def predicted(it: Any, labels: list[Any]) -> torch.Tensor:
    """Predictions of fixed rows under some labels."""
    x_t = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    row = torch.zeros(len(labels), dtype=torch.long)
    return it.predict(x_t, torch.tensor([0.4]), row, it.condition(labels))


@pytest.mark.parametrize("name", FOLDERS)
def test_only_the_classes_that_are_tuned_change(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    it = load(str(folder(name)), device="cpu")
    before = predicted(it, [0, 1, 2])
    with it.adapted(0, [1], 0) as adaptation:
        assert not adaptation.encodes_anew  # conditions are class numbers, whatever their embeddings
        torch.testing.assert_close(predicted(it, [0, 1, 2]), before, rtol=0, atol=0)
        predicted(it, [1]).square().sum().backward()
        for parameter in adaptation.parameters.parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0
            parameter.data.normal_(generator=torch.Generator().manual_seed(1))
        changed = predicted(it, [0, 1, 2])
        files = adaptation.save(tmp_path)
    assert files == {"words": "words.safetensors"}
    torch.testing.assert_close(changed[[0, 2]], before[[0, 2]])
    assert (changed[1] - before[1]).abs().max() > 1e-3
    torch.testing.assert_close(predicted(it, [0, 1, 2]), before, rtol=0, atol=0)  # it is as before
    again = load(str(folder(name)), words=tmp_path / "words.safetensors", device="cpu")
    torch.testing.assert_close(predicted(again, [0, 1, 2]), changed)


@pytest.mark.slow
def test_a_tuned_network_tells_classes_apart_and_is_saved(
    folder: Callable[[str], Path], text_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "steps_in", lambda trainer, seconds: 40)
    monkeypatch.setattr(training_run, "LOG_EVERY", 10)
    monkeypatch.setattr("hybridclf.tuning.tune.CHECKED", 24)
    X, y = pictures(12)
    tiers = specs_of(text_pair)[0], f"diffusers:{folder('ddpm')}?device=cpu"
    clf = HybridClassifier(*tiers, allocation=FixedTrials(4), random_state=0).fit(None, LABELS)
    before = predicted(clf.denoiser_, LABELS)
    tuned = tune(clf, X, y, out=tmp_path / "out", minutes=1, validation_fraction=0.25, rank=2, words=True)
    log = json.loads((tmp_path / "out" / "training" / "log.json").read_text())
    assert min(entry["held_out"] for entry in log["losses"]["tuned"]) < log["before"]["tuned"]
    assert "lora=" in tuned.denoiser and "lora_scale" not in tuned.denoiser  # all of it
    parts = {path.name for path in (tmp_path / "out" / "tuned").iterdir()}
    assert parts == {"pytorch_lora_weights.safetensors", "words.safetensors"}
    after = predicted(tuned.denoiser_, LABELS)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(predicted(clf.denoiser_, LABELS), before, rtol=0, atol=0)


def test_learned_times_are_no_classes(tmp_path: Path) -> None:
    it = load(
        str(save_named(lambda: ddpm(time_embedding_type="learned", num_train_timesteps=1000), tmp_path)), device="cpu"
    )
    with it.adapted(0, ["dog"], 0) as adaptation:
        assert [name for name, _ in adaptation.parameters.named_parameters()] == ["words.class_embedding"]


def test_a_lora_is_on_the_layers_by_which_the_class_enters(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for name, layer in (("ddpm", "time_emb_proj"), ("dit", "norm1.linear")):
        with load(str(folder(name)), device="cpu").adapted(2, (), 0) as adaptation:
            adaptation.save(tmp_path)
        names = {key.partition(".lora_")[0] for key in load_file(tmp_path / "pytorch_lora_weights.safetensors")}
        assert names and all(key.endswith(layer) for key in names)


def test_a_network_without_such_layers(folder: Callable[[str], Path]) -> None:
    it = load(str(folder("ddpm")), device="cpu")
    it.network = torch.nn.Sequential()
    with pytest.raises(
        InvalidInputError, match="Sequential has no layers that a LoRA is known for; give rank=0 and words"
    ):
        it.adapted(2, (), 0).__enter__()


def test_words_of_another_network(folder: Callable[[str], Path], tmp_path: Path) -> None:
    with load(str(folder("ddpm")), device="cpu").adapted(0, LABELS, 0) as adaptation:
        adaptation.save(tmp_path)
    with pytest.raises(SavedModelError, match="another configuration"):
        load(str(folder("dit")), words=tmp_path / "words.safetensors", device="cpu")


@pytest.mark.parametrize("lost", ["ids", "rows"])
def test_words_without_a_part(folder: Callable[[str], Path], tmp_path: Path, lost: str) -> None:
    with load(str(folder("ddpm")), device="cpu").adapted(0, LABELS, 0) as adaptation:
        adaptation.save(tmp_path)
    words = tmp_path / "words.safetensors"
    with safe_open(words, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.endswith(lost)}  # noqa: SIM118
        save_file(kept, words, file.metadata())
    with pytest.raises(SavedModelError, match="has words of another"):
        load(str(folder("ddpm")), words=words, device="cpu")


def test_captions_are_for_models_of_text(folder: Callable[[str], Path], text_pair: Path, tmp_path: Path) -> None:
    tiers = specs_of(text_pair)[0], f"diffusers:{folder('ddpm')}?device=cpu"
    clf = HybridClassifier(*tiers).fit(None, LABELS)
    with pytest.raises(InvalidTypeError, match="text"):
        tune(clf, pictures(1)[0], captions=[["a", "b"], ["b", "a"]], out=tmp_path / "out")
