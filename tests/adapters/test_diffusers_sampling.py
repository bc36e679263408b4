"""Diffusers pipelines beside errors: images, features, and another resolution."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hybridclf import DiffusionFeatures, InvalidInputError
from hybridclf.cli import app
from hybridclf.data.listing import list_labelled
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, dit, save

PROMPT = "a photo of a {}."
NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
"""From diffusers' own `set_timesteps`."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diffusers")


def saved(root: Path, name: str) -> Path:
    build = partial(dit, 1000) if name == "dit" else PIPELINES[name]
    return root / name if (root / name).exists() else save(build, root / name)


def photos(n: int, size: int = 16) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return [Image.fromarray(p) for p in pixels]


FAST, SLOW = ("sd-epsilon", "dit"), ("sd-v", "sdxl", "sd3", "if")
"""diffusers refuses to sample from a PixArt as small as ours."""


@NUMPY_2
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_generated_images_are_the_pipelines_own(root: Path, name: str) -> None:
    import diffusers

    denoiser = load(str(saved(root, name)), prompts=PROMPT, device="cpu")
    labels, seeds = ([1, 4] if name == "dit" else ["cat", "dog"]), [3, 8]
    images = denoiser.generate(labels, seeds)
    pipe = diffusers.DiffusionPipeline.from_pretrained(saved(root, name))
    pipe.set_progress_bar_config(disable=True)
    asked = {"class_labels": labels} if name == "dit" else {"prompt": [PROMPT.replace("{}", x) for x in labels]}
    theirs = pipe(**asked, generator=[torch.Generator().manual_seed(seed) for seed in seeds]).images
    for ours, own in zip(images, theirs, strict=True):
        difference = np.asarray(ours).astype(int) - np.asarray(own).astype(int)
        assert np.abs(difference).max() <= 1
    assert np.asarray(images[0]).std() > 0


def test_the_sampler_of_dit_knows_a_thousand_classes(root: Path) -> None:
    denoiser = load(str(save(dit, root / "dit-10")), device="cpu")
    with pytest.raises(InvalidInputError, match="1,000 classes only, and this one has 10"):
        denoiser.generate([1], [0])


@NUMPY_2
def test_a_folder_to_train_on(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    spec = f"diffusers:{saved(root, 'sd-epsilon')}"
    arguments = ["synthesize", str(out), "--denoiser", spec, "--labels", "cat, dog", "--per-class", "2", "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    listing = list_labelled(out)
    assert listing.classes == ["cat", "dog"] and len(list(listing.items)) == 4
    result = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert result.exit_code == 2 and "seed was 0, is 1; give a new folder" in result.output


def test_features_are_those_of_the_middle_block(root: Path) -> None:
    """Against the U-Net's own call."""
    folder, images = saved(root, "sd-epsilon"), photos(5)
    features = DiffusionFeatures(f"diffusers:{folder}", t=0.3, batch_size=2, device="cpu", random_state=4).fit()
    found = features.transform(images)
    denoiser = features.denoiser_
    pipe, times = denoiser.pipe, torch.full((5,), 0.3)
    step = denoiser.schedule.timestep[denoiser.schedule.index(times)]
    kept: list[Any] = []
    hook = pipe.unet.mid_block.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.inference_mode():
        noise = features._noise.expand(5, *denoiser.shape)
        x_t = pipe.scheduler.add_noise(denoiser.encode(images), noise, step.long())
        text = pipe.encode_prompt("", "cpu", 1, False)[0]
        pipe.unet(x_t, step, encoder_hidden_states=text.expand(5, -1, -1))
    hook.remove()
    np.testing.assert_allclose(found, kept[0].mean(dim=(2, 3)), atol=1e-4)
    np.testing.assert_allclose(found[3:4], features.transform(images[3:4]), atol=1e-5)


@pytest.mark.parametrize("name", ["sd3", "pixart", "if", "dit"])
def test_every_kind_of_network_has_features(root: Path, name: str) -> None:
    features = DiffusionFeatures(load(str(saved(root, name)), device="cpu")).fit_transform(photos(3))
    assert features.ndim == 2 and len(features) == 3 and np.isfinite(features).all() and features.std(axis=0).max() > 0


def test_another_resolution(root: Path) -> None:
    whole, images = load(str(saved(root, "sd-epsilon")), device="cpu"), photos(2)
    half, loaded = whole.at_resolution(8), load(str(saved(root, "sd-epsilon")), device="cpu", resolution=8)
    assert half.shape == loaded.shape == (4, 4, 4) and whole.shape == (4, 8, 8)
    torch.testing.assert_close(half.encode(images), loaded.encode(images))


@NUMPY_2
@pytest.mark.parametrize(
    "name", ["sd-epsilon", "dit", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sdxl", "sd3"))]
)
def test_images_are_generated_in_half_precision(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE stays in float32 there, as it may overflow."""

    def rounded(*size: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        return randn(*size, **options).to(dtype)

    randn = torch.randn
    # some versions of torch draw other numbers in float16 from the same seed: here both images have the same noise
    monkeypatch.setattr(torch, "randn", rounded)
    half = load(str(saved(root, name)), device="cpu", precision="fp16")
    assert half.vae.dtype == torch.float32 != half.network.dtype
    (image,) = half.generate([1] if name == "dit" else ["cat"], [3])
    (whole,) = load(str(saved(root, name)), device="cpu").generate([1] if name == "dit" else ["cat"], [3])
    difference = np.asarray(image).astype(int) - np.asarray(whole).astype(int)
    assert np.abs(difference).mean() < 8 < np.asarray(image).std()
    assert "decode" not in vars(half.vae)
