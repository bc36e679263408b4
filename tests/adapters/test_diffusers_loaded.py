"""Pipelines that are loaded already, as denoisers; VAEs of every kind, against diffusers' own pipelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hybridclf import FixedTrials, HybridClassifier, InvalidInputError, InvalidTypeError, Reranker, SavedModelError
from hybridclf_adapters.diffusers import from_pipeline, load
from tests.adapters.tiny_diffusers import (
    PIPELINES,
    asymmetric_vae,
    dit,
    save,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    tiny_vae,
    vae,
)

NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
"""From diffusers' own `set_timesteps`, which the adapter does not call."""

LABELS = ["cat", "dog", "cow"]
PROMPT = "a photo of a {}."
SIZE = 16


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def predicted(denoiser: Any, labels: list[Any] = LABELS) -> Tensor:
    x_t = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(0)).to(denoiser.dtype)
    row = torch.zeros(len(labels), dtype=torch.long)
    with torch.inference_mode():
        return denoiser.predict(x_t, torch.tensor([0.5]), row, denoiser.condition(labels))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(family)`: a pipeline of that family, saved."""
    root = tmp_path_factory.mktemp("loaded")
    return lambda name: root / name if (root / name).exists() else save(PIPELINES[name], root / name)


@pytest.fixture
def pipe(folder: Callable[[str], Path]) -> Callable[..., Any]:
    """`pipe(family, **options)`: the same as diffusers loads it."""
    import diffusers

    return lambda name, **options: diffusers.DiffusionPipeline.from_pretrained(folder(name), **options)


# --- from a pipeline that is loaded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_a_loaded_pipeline_answers_as_the_saved_one(
    name: str, pipe: Callable[..., Any], folder: Callable[[str], Path]
) -> None:
    source, labels = pipe(name), [0, 1, "hen"] if name == "dit" else LABELS
    parts = dict(source.components)
    for part in parts.values():  # as after a training
        if isinstance(part, nn.Module):
            part.train()
    made, saved = from_pipeline(source, prompts=PROMPT), load(str(folder(name)), prompts=PROMPT, device="cpu")
    assert torch.equal(predicted(made, labels), predicted(saved, labels))
    with torch.no_grad():
        assert torch.equal(made.encode([photo()]), saved.encode([photo()]))
    assert (made.dtype, made.device, made.shape) == (saved.dtype, saved.device, saved.shape)
    assert made.pipe is source and all(source.components[name] is part for name, part in parts.items())
    assert all(not network.training for network in made.networks.values())


class LoRA(nn.Module):
    """A linear layer and a change of low rank beside it, as peft puts one there."""

    def __init__(self, base: nn.Linear, seed: int) -> None:
        super().__init__()
        self.base_layer, generator = base, torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.randn(2, base.in_features, generator=generator))
        self.b = nn.Parameter(torch.randn(base.out_features, 2, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ (self.b @ self.a).T


def test_what_was_added_to_its_networks_is_active(pipe: Callable[..., Any]) -> None:
    source = pipe("sd-epsilon")
    plain = from_pipeline(source, prompts=PROMPT)
    before, text = predicted(plain), plain.condition(LABELS)["text"]
    attention, layer = (
        source.unet.mid_block.attentions[0].transformer_blocks[0].attn2,
        source.text_encoder.encoder.layers[0],
    )
    attention.to_q = LoRA(attention.to_q, 0)
    layer.self_attn.q_proj = LoRA(layer.self_attn.q_proj, 1)
    adapted = from_pipeline(source, prompts=PROMPT)
    assert adapted.network is source.unet
    assert (adapted.condition(LABELS)["text"] - text).abs().max() > 1e-3
    assert (predicted(adapted) - before).abs().max() > 1e-3

    fused = pipe("sd-epsilon")  # the same change in the weights themselves
    for to, of in (
        (fused.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_q, attention.to_q),
        (fused.text_encoder.encoder.layers[0].self_attn.q_proj, layer.self_attn.q_proj),
    ):
        to.weight.data += of.b @ of.a
    torch.testing.assert_close(
        predicted(adapted), predicted(from_pipeline(fused, prompts=PROMPT)), rtol=1e-4, atol=1e-4
    )


def types_of(pipe: Any) -> dict[str, torch.dtype]:
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return {name: value.dtype for name, value in nn.ModuleDict(networks).named_parameters()}


@pytest.mark.parametrize("name", ["sd-epsilon", "sdxl", "sd3", "pixart"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_types_stay_as_they_are(
    name: str, precision: str, pipe: Callable[..., Any], folder: Callable[[str], Path]
) -> None:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    source = pipe(name, dtype=dtype)
    if name == "sd3":  # its transformer stays in float32 without accelerate
        source.transformer.to(dtype)
    types, made = types_of(source), from_pipeline(source, prompts=PROMPT)
    saved = load(str(folder(name)), prompts=PROMPT, precision=precision, device="cpu")
    assert made.dtype == dtype
    with torch.no_grad():
        x0 = made.encode([photo()])
        assert torch.equal(x0, saved.encode([photo()]))  # whose VAE is in float32 for good where it must
    assert x0.dtype == dtype
    torch.testing.assert_close(predicted(made), predicted(saved), rtol=0.02, atol=0.02)
    assert types_of(source) == types


@pytest.mark.parametrize("name", ["sd-epsilon", "sdxl", "sd3", "pixart", "if"])
def test_a_text_encoder_of_another_type_than_the_network(name: str, pipe: Callable[..., Any]) -> None:
    source, plain = pipe(name), from_pipeline(pipe(name), prompts=PROMPT)
    for part, network in source.components.items():
        if part.startswith("text_encoder"):
            network.to(torch.bfloat16)
    mixed = from_pipeline(source, prompts=PROMPT)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(predicted(mixed), predicted(plain), rtol=0.05, atol=0.1)


def test_a_vae_that_overflows_in_float16(pipe: Callable[..., Any]) -> None:
    source = pipe("sdxl", dtype=torch.float16)
    source.vae.encoder.conv_in.bias.data.fill_(6e4)
    source.vae.encoder.down_blocks[0].resnets[0].conv2.bias.data.fill_(6e4)  # what they add up to is beyond 65504
    with torch.no_grad():
        assert from_pipeline(source).encode([photo()]).isfinite().all()
        source.vae.register_to_config(force_upcast=False)  # as those say that were mended
        assert not from_pipeline(source).encode([photo()]).isfinite().all()
    assert source.vae.dtype == torch.float16


def test_options_of_a_loaded_pipeline(pipe: Callable[..., Any]) -> None:
    made = from_pipeline(pipe("sd-epsilon"), prompts=["a {}", "the {}"], resolution=24)
    assert made.shape == (4, 12, 12)
    assert len(made.condition(LABELS)["text"]) == 6
    with pytest.raises(InvalidInputError, match="prompts must be templates"):
        from_pipeline(pipe("sd-epsilon"), prompts="a cat")
    with pytest.raises(InvalidInputError, match="a multiple of 2, got 15"):
        from_pipeline(pipe("sd-epsilon"), resolution=15)


def test_a_pipeline_that_was_never_saved() -> None:
    made = from_pipeline(stable_diffusion())
    assert repr(made) == "StableDiffusion('StableDiffusionPipeline', 16 px, torch.float32, cpu)"
    [result] = Reranker(made, allocation=FixedTrials(2)).rerank([photo()], [LABELS])
    assert result.evaluations == 6 and set(result.ranking) == set(LABELS)


def test_it_re_ranks_in_a_classifier(pipe: Callable[..., Any], folder: Callable[[str], Path]) -> None:
    X = np.stack([np.asarray(photo(i)) for i in range(4)])

    def answers(denoiser: Any) -> np.ndarray:
        options: dict[str, Any] = {"allocation": FixedTrials(2), "random_state": 0}
        clf = HybridClassifier(lambda images: np.full((len(images), 2), -np.log(2)), denoiser, **options)
        return clf.fit(None, ["cat", "dog"]).predict_proba(X)

    made, saved = from_pipeline(pipe("sd-epsilon")), load(str(folder("sd-epsilon")), device="cpu")
    np.testing.assert_array_equal(answers(made), answers(saved))


def test_dits_own_names(pipe: Callable[..., Any]) -> None:
    source = pipe("dit")
    assert from_pipeline(source).condition(["hen", "Struthio camelus", 0])["class"].tolist() == [3, 4, 0]
    nameless = dit()
    assert nameless.labels == {}
    assert from_pipeline(nameless).condition([3])["class"].tolist() == [3]


def test_what_is_no_pipeline_of_ours(pipe: Callable[..., Any]) -> None:
    import diffusers

    source = pipe("sd-epsilon")
    other = diffusers.StableDiffusionImg2ImgPipeline(**source.components, requires_safety_checker=False)
    assert torch.equal(predicted(from_pipeline(other)), predicted(from_pipeline(source)))
    for thing in ("owner/repo", source.unet, None):
        with pytest.raises(InvalidTypeError, match=f"a {type(thing).__name__} is not supported"):
            from_pipeline(thing)

    class Mine(diffusers.StableDiffusionPipeline):
        """One's own, of a family that is known."""

    mine = Mine(**source.components, requires_safety_checker=False)
    assert torch.equal(predicted(from_pipeline(mine)), predicted(from_pipeline(source)))


def test_a_loaded_pipeline_that_is_not_whole(pipe: Callable[..., Any]) -> None:
    source = pipe("sd-epsilon")
    source.vae.to("meta")
    with pytest.raises(InvalidInputError, match=r"pipeline's \w+ is on \w+, and others on \w+; type: pipe\.to\('"):
        from_pipeline(source)
    source.register_modules(vae=None, tokenizer=None)
    with pytest.raises(SavedModelError, match="it was made without vae and tokenizer"):
        from_pipeline(source)


# --- VAEs -------------------------------------------------------------------------------------------------------------

SPREAD = {"latents_mean": (0.5, -0.25, 0.125, 1.0), "latents_std": (2.0, 0.5, 1.5, 3.0)}
IMAGE_TO_IMAGE = {
    "sd": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline",
}
BUILDERS = {"sd": stable_diffusion, "sdxl": stable_diffusion_xl, "sd3": stable_diffusion_3}


def diffusers_latents(pipe: Any, kind: str, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """x0 as diffusers' image-to-image pipeline of that kind prepares it, without the noise it adds."""
    import diffusers

    options = {"requires_safety_checker": False} if kind == IMAGE_TO_IMAGE["sd"] else {}
    other = getattr(diffusers, kind)(**pipe.components, **options)
    pixels = other.image_processor.preprocess(image)
    noise = "scale_noise" if hasattr(other.scheduler, "scale_noise") else "add_noise"
    monkeypatch.setattr(type(other.scheduler), noise, lambda _self, latents, *_: latents)
    return other.prepare_latents(pixels, torch.tensor([500]), 1, 1, torch.float32, torch.device("cpu"))


def certain(network: Any) -> Any:
    """A VAE whose latents have next to no variance: a sample is the mean."""
    if hasattr(network, "quant_conv"):
        half = len(network.quant_conv.bias) // 2
        network.quant_conv.weight.data[half:], network.quant_conv.bias.data[half:] = 0, -60
    return network


VAES: dict[str, Callable[[], Any]] = {
    "tiny": tiny_vae,
    "asymmetric": asymmetric_vae,
    "spread": lambda: vae(**SPREAD),
    "mean-alone": lambda: vae(latents_mean=SPREAD["latents_mean"]),
}


@pytest.mark.parametrize(
    ("family", "name"), [*((family, name) for family in ("sd", "sdxl") for name in VAES), ("sd3", "tiny")]
)
def test_a_vae_of_another_kind_is_read_as_diffusers_does(
    family: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> Any:
        made = BUILDERS[family]()
        made.register_modules(vae=tiny_vae(16) if family == "sd3" else VAES[name]())
        return made

    it = load(str(save(build, tmp_path / "pipe")), device="cpu")
    certain(it.pipe.vae)
    with torch.no_grad():
        x0 = it.encode([photo()])
        expected = diffusers_latents(it.pipe, IMAGE_TO_IMAGE[family], photo(), monkeypatch)
    assert x0.shape == (1, *it.shape)
    torch.testing.assert_close(x0, expected, rtol=1e-4, atol=1e-5)
    assert predicted(it).isfinite().all()


@NUMPY_2
@torch.no_grad()
def test_latents_are_what_the_pipeline_decodes(pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What latents are divided by and shifted by on their way out is undone on their way in."""
    source, decoded = pipe("sdxl"), []
    source.register_modules(vae=vae(scaling_factor=0.2, **SPREAD))
    source.set_progress_bar_config(disable=True)
    x0, decode = from_pipeline(source).encode([photo()]), source.vae.decode
    monkeypatch.setattr(source.vae, "decode", lambda z, **options: (decoded.append(z), decode(z, **options))[1])
    monkeypatch.setattr(type(source.scheduler), "step", lambda *_, **__: (x0,))
    call = {"num_inference_steps": 1, "height": SIZE, "width": SIZE, "guidance_scale": 1.0}
    [image] = source("a cat", output_type="np", **call).images
    expected = source.vae.encode(source.image_processor.preprocess(photo())).latent_dist.mean
    torch.testing.assert_close(decoded[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(from_pipeline(source).decode(x0)[0], 255 * image, atol=1)
