"""The newer text-to-image families behind the denoiser port, against generations of diffusers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hybridclf import Denoiser, FixedTrials, InvalidInputError, Reranker
from hybridclf.ports import take
from hybridclf_adapters._diffusers_schedule import Schedule
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import save
from tests.adapters.tiny_flows import PIPELINES

PROMPT = "a photo of a {}."
LABELS = ["cat", "ostriches", "hen"]

SIZES: dict[str, int] = {}
"""Edge in pixels of the tiny images, where it is not 16."""

CALLS: dict[str, dict[str, Any]] = {
    "flux-dev": {"guidance_scale": 3.5},
    "flux-schnell": {"max_sequence_length": 256},
}
"""Arguments of the pipelines' calls that ask the network once per step, as the adapter does."""

PACKED = ("flux",)
"""Pipelines whose latents are packed in a call."""


def size_of(name: str) -> int:
    return SIZES.get(name, 16)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(family)`: a pipeline of that family, saved."""
    root = tmp_path_factory.mktemp("flows")
    return lambda name: root / name if (root / name).exists() else save(PIPELINES[name], root / name)


@pytest.fixture(scope="session")
def pipe(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """`pipe(family)`: the same as diffusers loads it, on its own."""
    import diffusers

    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            loaded[name] = diffusers.DiffusionPipeline.from_pretrained(folder(name))
            loaded[name].set_progress_bar_config(disable=True)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def fresh(folder: Callable[[str], Path]) -> Callable[..., Any]:
    """`fresh(family, **options)`: loaded through the adapter."""
    common = {"prompts": PROMPT, "device": "cpu"}
    return lambda name, **options: load(str(folder(name)), **common | {"resolution": size_of(name)} | options)


@pytest.fixture(scope="session")
def denoiser(fresh: Callable[..., Any]) -> Callable[[str], Any]:
    """`denoiser(family)`: the same, once."""
    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            loaded[name] = fresh(name)
        return loaded[name]

    return get


def photo(seed: int, edge: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), dtype=np.uint8))


# --- what diffusers itself does ---------------------------------------------------------------------------------------


def packed(name: str, latents: Tensor) -> Tensor:
    """Latents `[1, C, h, w]` in the form that the pipeline's call takes and gives."""
    if name.startswith(PACKED):
        (c, h, w), own = latents.shape[1:], latents
        own = own.view(1, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return own.reshape(1, h * w // 4, 4 * c)
    return latents


def unpacked(name: str, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    if name.startswith(PACKED):
        c, h, w = shape
        return latents.view(1, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, c, h, w)
    return latents


def generate(name: str, pipe: Any, label: str, shape: tuple[int, ...], n_steps: int = 2, **options: Any) -> list[Any]:
    """Steps (x, σ, v̂) of a generation: the velocity is read from how far the sampler moved each x."""
    xs = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(len(label)))]

    def keep(_pipe: Any, _i: int, _t: Any, states: dict[str, Tensor]) -> dict[str, Tensor]:
        xs.append(unpacked(name, states["latents"], shape).clone())
        return {}

    edge = size_of(name)
    call = {"height": edge, "width": edge, "num_inference_steps": n_steps} | CALLS[name] | options
    pipe(PROMPT.format(label), latents=packed(name, xs[0]), callback_on_step_end=keep, output_type="latent", **call)
    sigma = pipe.scheduler.sigmas.tolist()
    assert len(xs) == n_steps + 1
    return [(xs[i], sigma[i], (xs[i + 1] - xs[i]) / (sigma[i + 1] - sigma[i])) for i in range(n_steps)]


# --- the port ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_predicted_is_where_the_pipeline_goes_when_it_generates(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """All steps of three generations, in one batch through the port."""
    it, heard, number = denoiser(name), [], []
    assert isinstance(it, Denoiser)
    for i, label in enumerate(LABELS):
        steps = generate(name, pipe(name), label, it.shape)
        heard, number = heard + steps, number + [i] * len(steps)
    x_t, levels, velocity = (part for part in zip(*heard, strict=True))
    x_t, sigma, velocity = torch.cat(x_t), torch.tensor(levels), torch.cat(velocity)
    condition = take(it.condition(LABELS), torch.tensor(number))
    found = it.forward(x_t, 1000 * sigma, condition)
    torch.testing.assert_close(found, velocity, rtol=1e-3, atol=1e-4)
    others = it.forward(x_t, 1000 * sigma, take(condition, torch.arange(len(heard)) - 2))
    assert (found - others).abs().amax(dim=(1, 2, 3)).min() > 1e-4  # the label matters

    own = it.at_resolution(it.resolution)  # in place of the 1,000 levels, those of these steps
    own.schedule = Schedule(1 - sigma, sigma, 1000 * sigma, "flow")
    row = torch.arange(len(heard))
    predicted = own.predict(x_t, (row + 0.5) / len(heard), row, condition)
    torch.testing.assert_close(predicted, x_t + (1 - sigma).view(-1, 1, 1, 1) * velocity, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", PIPELINES)
def test_levels_are_those_of_the_pipelines_steps(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """Every level that a generation of four steps visits is among the 1,000 ones, as the network is told it."""
    it = denoiser(name)
    for _, sigma, _ in generate(name, pipe(name), "cat", it.shape, n_steps=4):
        index = int((it.schedule.sigma - sigma).abs().argmin())
        alpha, level = it.noise_levels(torch.tensor([(index + 0.5) / 1000]))
        assert level.item() == pytest.approx(sigma, abs=1e-5)
        assert alpha.item() == pytest.approx(1 - sigma, abs=1e-5)
        assert it.schedule.timestep[index].item() == pytest.approx(1000 * sigma, abs=0.01)


@pytest.mark.parametrize("name", PIPELINES)
def test_an_image_is_encoded_to_what_the_pipeline_decodes(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """x0 put at the end of a generation reaches the VAE's decoder as what its encoder made of the image."""
    it, source, given = denoiser(name), pipe(name), []
    x0 = it.encode([photo(1, it.resolution)])
    pixels = torch.from_numpy(np.array(photo(1, it.resolution))).permute(2, 0, 1)[None] / 127.5 - 1
    decode = source.vae.decode
    source.vae.decode = lambda z, *args, **kwargs: (given.append(z), decode(z, *args, **kwargs))[1]
    try:
        call = {"height": it.resolution, "width": it.resolution, "num_inference_steps": 1} | CALLS[name]
        last = lambda *_: {"latents": packed(name, x0)}  # noqa: E731
        source(PROMPT.format("cat"), output_type="np", callback_on_step_end=last, **call)
    finally:
        del source.vae.decode
    encoded = source.vae.encode(pixels[:, :, None] if given[0].ndim == 5 else pixels)
    expected = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    torch.testing.assert_close(given[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PIPELINES)
def test_images_are_ranked_by_errors_of_the_velocity(name: str, denoiser: Callable[[str], Any]) -> None:
    it = denoiser(name)
    reranker = Reranker(it, allocation=FixedTrials(2), batch_size=5)
    [result] = reranker.rerank([photo(5, it.resolution)], [LABELS])
    x0, condition = it.encode([photo(5, it.resolution)]), it.condition(LABELS)
    t, noise = reranker.plan.timesteps(np.arange(2)), reranker.plan.noise(np.arange(2))
    for trial in range(2):
        eps, time = torch.from_numpy(noise[trial])[None], torch.tensor([float(t[trial])])
        alpha, sigma = it.noise_levels(time)
        for c in range(len(LABELS)):
            x_t, own = alpha * x0 + sigma * eps, take(condition, torch.tensor([c]))
            predicted = it.predict(x_t, time, torch.tensor([0]), own)
            velocity = (predicted - x_t) / alpha  # v̂ = (ε̂ − x_t)/α, as x_t = α·x0 + (1 − α)·ε
            expected = (velocity - (eps - x0)).square().sum().item()
            assert result.evidence[trial, c] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(name: str, precision: str, fresh: Callable[..., Any], denoiser: Callable[[str], Any]) -> None:
    it, full = fresh(name, precision=precision), denoiser(name)
    x0 = it.encode([photo(0, it.resolution)])
    assert x0.dtype == it.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    t, row = torch.tensor([0.4]), torch.tensor([0, 0])
    alpha, sigma = it.noise_levels(t)
    noise = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    predicted = [
        d.predict(alpha * x0 + sigma * noise, t, row, take(d.condition(LABELS), torch.tensor([0, 1])))
        for d in (it, full)
    ]
    tolerance = 0.15 if precision == "bf16" else 0.03
    torch.testing.assert_close(predicted[0].float(), predicted[1], rtol=tolerance, atol=tolerance)


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_is_the_samplers_unless_another_is_asked_for(
    fresh: Callable[..., Any], denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, other = denoiser("flux-dev"), fresh("flux-dev", guidance=1.0)
    assert (it.guidance, other.guidance) == (3.5, 1.0)
    [(x, sigma, expected)] = generate("flux-dev", pipe("flux-dev"), "cat", it.shape, n_steps=1, guidance_scale=1.0)
    with torch.no_grad():
        usual, *asked = (
            one.forward(x, torch.tensor([1000 * sigma]), one.condition(["cat"]))
            for one in (it, other, it.with_guidance(1))
        )
    for found in asked:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(usual, expected, atol=1e-2)
    assert it.sampler_inputs(["cat"], [0])["guidance_scale"] == 3.5
    assert "guidance_scale" not in denoiser("flux-schnell").sampler_inputs(["cat"], [0])


def test_guidance_that_cannot_be(fresh: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="this Flux takes no guidance"):
        fresh("flux-schnell", guidance=3.5)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="guidance must be a number from 0 on"):
            fresh("flux-dev", guidance=wrong)
