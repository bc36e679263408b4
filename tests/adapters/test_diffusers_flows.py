"""The newer text-to-image families behind the denoiser port, against generations of diffusers itself."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hybridclf import Denoiser, DiffusionFeatures, FixedTrials, InvalidInputError, Reranker, plugins
from hybridclf.captions import score_captions, without_template
from hybridclf.data.arrays import Items
from hybridclf.ports import take
from hybridclf_adapters._diffusers_families import RELATED
from hybridclf_adapters._diffusers_logging import quiet
from hybridclf_adapters._diffusers_schedule import Schedule
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import save, stable_diffusion_3
from tests.adapters.tiny_flows import PIPELINES

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]
"""From diffusers' own `set_timesteps`, its Chroma and its ChatGLM."""

PROMPT = "a photo of a {}."
LABELS = ["cat", "ostriches", "hen"]

SIZES = {"sana": 32, "sana-sprint": 32, "lumina2": 32, "hunyuan-dit": 32}
"""Edge in pixels of the tiny images, where it is not 16."""

CALLS: dict[str, dict[str, Any]] = {
    "flux-dev": {"guidance_scale": 3.5},
    "flux-schnell": {"max_sequence_length": 256},
    "sana": {"guidance_scale": 1.0, "use_resolution_binning": False},
    "sana-sprint": {"guidance_scale": 4.5, "use_resolution_binning": False},
    "auraflow": {"guidance_scale": 1.0},
    "lumina2": {"guidance_scale": 1.0},
    "z-image": {"guidance_scale": 0.0},
    "cogview4": {"guidance_scale": 1.0},
    "chroma": {"guidance_scale": 1.0},
    "qwen-image": {"true_cfg_scale": 1.0},
    "flux2-dev": {"guidance_scale": 4.0},
    "flux2-klein": {"guidance_scale": 1.0},
    "hunyuan-dit": {"guidance_scale": 1.0, "use_resolution_binning": False},
    "kolors": {"guidance_scale": 1.0},
}
"""Arguments of the pipelines' calls that ask the network once per step, as the adapter does."""

LEVELS: dict[str, dict[str, Any]] = {
    "sana-sprint": {"intermediate_timesteps": None},
    "auraflow": {"sigmas": [1.0, 0.75, 0.5, 0.25]},  # which would be shifted twice otherwise
    "flux2-dev": {"num_inference_steps": 50},  # on which its shift depends
    "flux2-klein": {"num_inference_steps": 50},  # on which its shift depends
}
"""Arguments besides of a call of four steps or more."""

PACKED = ("flux-", "chroma", "qwen")
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
    """Latents `[1, C, h, w]` in the form that the pipeline's scheduler gets."""
    if name.startswith("flux2"):
        return latents.flatten(2).transpose(1, 2)
    if name.startswith(PACKED):
        (c, h, w), own = latents.shape[1:], latents
        own = own.view(1, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return own.reshape(1, h * w // 4, 4 * c)
    return latents


def unpacked(name: str, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    if name.startswith("flux2"):
        return latents.transpose(1, 2).reshape(1, *shape)
    if name.startswith(PACKED):
        c, h, w = shape
        return latents.view(1, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, c, h, w)
    return latents


@dataclass
class Step:
    """What a pipeline gave its scheduler at a step: x_t at levels α and σ, and the output of the network as used."""

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    output: Tensor


def generate(
    name: str, pipe: Any, label: str, shape: tuple[int, ...], n_steps: int = 2, edge: int = 0, **options: Any
) -> list[Step]:
    """Steps of a generation."""
    edge = edge or size_of(name)
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(len(label)))
    heard: list[Step] = []
    scheduler, step = pipe.scheduler, pipe.scheduler.step

    def overhear(output: Tensor, timestep: Tensor, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        own = [unpacked(name, value, shape) / getattr(scheduler.config, "sigma_data", 1) for value in (sample, output)]
        alpha, sigma, time = levels(scheduler, timestep, len(heard))
        # such a sampler moves x0 + (σ/α)·ε
        x_t = alpha.view(-1, 1, 1, 1) * own[0] if name == "kolors" else own[0]
        heard.append(Step(x_t, alpha, sigma, time, own[1]))
        return step(output, timestep, sample, *args, **kwargs)

    given = x if name.startswith("flux2") else packed(name, x)
    scheduler.step = overhear
    try:
        call = {"height": edge, "width": edge, "num_inference_steps": n_steps} | CALLS[name] | options
        pipe(prompt=PROMPT.format(label), latents=given, output_type="latent", **call)
    finally:
        del scheduler.step
    assert len(heard) == call["num_inference_steps"]
    return heard


def levels(scheduler: Any, timestep: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """α, σ and the adapter's timestep `[1]` of step i."""
    if type(scheduler).__name__ == "EulerDiscreteScheduler":  # whose σ is our σ/α
        sigma, norm = scheduler.sigmas[i].reshape(1), (1 + scheduler.sigmas[i].reshape(1) ** 2).sqrt()
        return 1 / norm, sigma / norm, timestep.reshape(1)
    if hasattr(scheduler, "sigmas"):
        sigma = scheduler.sigmas[i].reshape(1)
        return 1 - sigma, sigma, timestep.reshape(1)
    if hasattr(scheduler, "alphas_cumprod"):
        mean = scheduler.alphas_cumprod[timestep].reshape(1)
        return mean.sqrt(), (1 - mean).sqrt(), timestep.reshape(1)
    angle = timestep.reshape(1)
    return angle.cos(), angle.sin(), angle


def noise_of(step: Step, prediction: str) -> Tensor:
    """ε̂ of a step by the definition of what the network predicts."""
    alpha, sigma = step.alpha.view(-1, 1, 1, 1), step.sigma.view(-1, 1, 1, 1)
    if prediction == "flow":  # v = ε − x0, x_t = (1 − σ)·x0 + σ·ε
        return step.x_t + alpha * step.output
    return step.output if prediction == "epsilon" else alpha * step.output + sigma * step.x_t  # v = α·ε − σ·x0


# --- the port ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_predicted_is_where_the_pipeline_goes_when_it_generates(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """All steps of three generations, in one batch through the port."""
    it = denoiser(name)
    assert isinstance(it, Denoiser)
    heard = [step for label in LABELS for step in generate(name, pipe(name), label, it.shape)]
    number = torch.arange(len(LABELS)).repeat_interleave(2)
    every = Step(*(torch.cat([getattr(step, field.name) for step in heard]) for field in fields(Step)))
    condition = take(it.condition(LABELS), number)
    found = it.forward(every.x_t, every.timestep, condition)[:, : it.shape[0]]  # others are a learned variance
    torch.testing.assert_close(found, every.output, rtol=1e-4, atol=1e-5)
    others = it.forward(every.x_t, every.timestep, take(condition, torch.arange(len(heard)) - 2))[:, : it.shape[0]]
    assert (found - others).abs().amax(dim=(1, 2, 3)).min() > 1e-4  # the label matters

    own = it.at_resolution(it.resolution)  # in place of the 1,000 levels, those of these steps
    own.schedule = Schedule(every.alpha, every.sigma, every.timestep, it.schedule.prediction)
    row = torch.arange(len(heard))
    predicted = own.predict(every.x_t, (row + 0.5) / len(heard), row, condition)
    torch.testing.assert_close(predicted, noise_of(every, it.schedule.prediction), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PIPELINES if name not in ("sana", "qwen-image")])
def test_levels_are_those_of_the_pipelines_steps(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """Every level that a generation of four steps visits is among the 1,000 ones, as the network is told it."""
    it = denoiser(name)
    for step in generate(name, pipe(name), "cat", it.shape, n_steps=4, **LEVELS.get(name, {})):
        index = int((it.schedule.sigma - step.sigma).abs().argmin())
        alpha, sigma = it.noise_levels(torch.tensor([(index + 0.5) / len(it.schedule.sigma)]))
        torch.testing.assert_close(sigma, step.sigma, rtol=0, atol=1e-5)
        torch.testing.assert_close(alpha, step.alpha, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            it.schedule.timestep[index : index + 1].float(), step.timestep.float(), rtol=0, atol=0.01
        )


def test_levels_are_not_stretched_to_end_above_0(denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    """As Qwen-Image's sampler does it with those of its steps."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    it, own = denoiser("qwen-image"), pipe("qwen-image").scheduler
    plain = type(own).from_config(own.config, shift_terminal=None)
    plain.set_timesteps(sigmas=np.linspace(1, 0.001, 1000), mu=calculate_shift(16, 256, 8192, 0.5, 0.9))
    torch.testing.assert_close(it.schedule.sigma.flip(0), plain.sigmas[:-1], rtol=1e-5, atol=1e-6)


def test_levels_are_those_of_a_solver(denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    schedule, solver = denoiser("sana").schedule, pipe("sana").scheduler
    solver.set_timesteps(999)
    assert torch.equal(schedule.sigma.flip(0), solver.sigmas[:-1])
    assert torch.equal(schedule.timestep.flip(0), solver.timesteps)
    x, velocity = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    solver._step_index = 500
    x0 = solver.convert_model_output(velocity, sample=x)  # its x̂0 and our ε̂ are of the same x_t
    index = torch.tensor([998 - 500])
    noise = schedule.noise(velocity, x, index)
    torch.testing.assert_close(schedule.alpha[index] * x0 + schedule.sigma[index] * noise, x, rtol=1e-5, atol=1e-5)


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
        edge, scale = it.resolution, getattr(source.scheduler.config, "sigma_data", 1)
        source.scheduler.step = lambda *_args, **_kwargs: (packed(name, x0) * scale,) * 2
        call = {"height": edge, "width": edge, "num_inference_steps": 2} | CALLS[name]
        [image] = source(prompt=PROMPT.format("cat"), output_type="np", **call).images
    finally:
        del source.vae.decode, source.scheduler.step
    encoded = source.vae.encode(pixels[:, :, None] if given[0].ndim == 5 else pixels)
    expected = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mean
    torch.testing.assert_close(given[0], expected, rtol=1e-4, atol=1e-4)
    [decoded] = it.decode(x0)
    assert decoded.dtype == np.uint8 and decoded.std() > 0
    np.testing.assert_allclose(decoded, 255 * image, atol=1)


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
            expected = (predicted - eps).square().sum().item()
            if it.schedule.prediction == "flow":  # v̂ = (ε̂ − x_t)/α, as x_t = α·x0 + (1 − α)·ε
                expected = ((predicted - x_t) / alpha - (eps - x0)).square().sum().item()
            assert result.evidence[trial, c] == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", PIPELINES)
def test_half_precision(name: str, fresh: Callable[..., Any], denoiser: Callable[[str], Any]) -> None:
    """In the type that is the family's default on a GPU."""
    full = denoiser(name)
    it = fresh(name, precision={torch.bfloat16: "bf16", torch.float16: "fp16"}[full.half])
    x0 = it.encode([photo(0, it.resolution)])
    assert x0.dtype == it.dtype == full.half
    t, row = torch.tensor([0.4995]), torch.tensor([0, 0])  # 500 of 1000, which bf16 can tell
    alpha, sigma = it.noise_levels(t)
    noise = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    predicted, expected = (
        d.predict(alpha * x0 + sigma * noise, t, row, d.condition(LABELS[:2])).float() for d in (it, full)
    )
    assert (predicted - expected).norm() < (0.1 if full.half == torch.bfloat16 else 0.01) * expected.norm()


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_another_resolution(name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    it = denoiser(name).at_resolution(2 * size_of(name))
    assert it.shape[1:] == tuple(2 * edge for edge in denoiser(name).shape[1:])
    *_, step = generate(name, pipe(name), "cat", it.shape, edge=it.resolution)
    found = it.forward(step.x_t, step.timestep, it.condition(["cat"]))[:, : it.shape[0]]
    torch.testing.assert_close(found, step.output, rtol=1e-4, atol=1e-5)
    if name in ("flux-dev", "cogview4"):  # whose levels depend on the resolution
        nearest = [(one.schedule.sigma - step.sigma).abs().min() for one in (it, denoiser(name))]
        assert nearest[0] < 1e-6 < 1e-5 < nearest[1]


def test_the_training_resolution_is_the_pipelines_own(fresh: Callable[..., Any]) -> None:
    """In which a latent of a tiny VAE has 2 pixels, where those of published ones have 8."""
    sizes = {"flux-dev": 256, "auraflow": 1024, "lumina2": 32, "z-image": 1024, "qwen-image": 256, "sana": 32}
    assert {name: fresh(name, resolution=None).resolution for name in sizes} == sizes


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_prompts_are_checked_as_the_text_encoders_read_them(name: str, denoiser: Callable[[str], Any]) -> None:
    """Tokens of `as_read`, up to the limit, are those that reach the encoders."""
    it, heard = denoiser(name), []

    def overhear(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        heard.append((args[0] if args else kwargs["input_ids"])[0].tolist())

    encoders = [part for key, part in it.pipe.components.items() if key.startswith("text_encoder")]
    hooks = [encoder.register_forward_pre_hook(overhear, with_kwargs=True) for encoder in encoders]
    for prompt in ("a Cat. ", "a cat " * 300):
        heard.clear()
        with quiet():
            it.embed([prompt])
        for read, (tokenizer, limit) in zip(heard, it.tokenizers(), strict=True):
            [checked] = tokenizer(it.as_read([prompt]), truncation=True, max_length=limit)["input_ids"]
            start = next(i for i in range(len(read)) if read[i : i + len(checked)] == checked)
            assert len(checked) == limit or prompt == "a Cat. "
            padding = read[:start] if start else read[len(checked) :]
            assert prompt != "a Cat. " or len(set(padding)) <= 1
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", PIPELINES)
def test_labels_that_differ_where_prompts_are_cut_off(name: str, denoiser: Callable[[str], Any]) -> None:
    it = denoiser(name)
    with (
        pytest.warns(UserWarning, match="cut off after"),
        pytest.raises(InvalidInputError, match="read the same to the model"),
    ):
        it.condition(["dog " * 600 + "cat", "dog " * 600 + "hen"])


@pytest.mark.parametrize("name", PIPELINES)
def test_captions_have_scores_and_so_has_no_prompt(name: str, denoiser: Callable[[str], Any]) -> None:
    it = denoiser(name)
    stage = Reranker(without_template(it), allocation=FixedTrials(1))
    images = [photo(i, it.resolution) for i in range(2)]
    captions = [("a cat", "a photo of two dogs"), ("hen",)]
    first, second = score_captions(None, stage, Items(images, images), captions)
    assert np.isfinite([*first.gain, *second.gain]).all() and np.ptp([*first.gain, 0]) > 0
    (alone,) = score_captions(None, stage, Items(images[1:], images[1:]), captions[1:])
    np.testing.assert_allclose(second.errors, alone.errors, rtol=1e-4)


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_is_the_samplers_unless_another_is_asked_for(
    fresh: Callable[..., Any], denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, other = denoiser("flux-dev"), fresh("flux-dev", guidance=1.0)
    assert (it.guidance, other.guidance) == (3.5, 1.0)
    [step] = generate("flux-dev", pipe("flux-dev"), "cat", it.shape, n_steps=1, guidance_scale=1.0)
    with torch.no_grad():
        usual, *asked = (
            one.forward(step.x_t, step.timestep, one.condition(["cat"])) for one in (it, other, it.with_guidance(1))
        )
    for found in asked:
        torch.testing.assert_close(found, step.output, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(usual, step.output, atol=1e-2)
    assert it.sampler_inputs(["cat"], [0])["guidance_scale"] == 3.5
    assert "guidance_scale" not in denoiser("flux-schnell").sampler_inputs(["cat"], [0])


def test_guidance_that_cannot_be(fresh: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="this Flux takes no guidance"):
        fresh("flux-schnell", guidance=3.5)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="guidance must be a number from 0 on"):
            fresh("flux-dev", guidance=wrong)


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flux-dev", "qwen-image", "sana", "cogview4", "hunyuan-dit", "kolors"])
def test_features_of_a_middle_block(name: str, denoiser: Callable[[str], Any]) -> None:
    images = [photo(i, size_of(name)) for i in range(3)]
    features = DiffusionFeatures(denoiser(name)).fit_transform(images)
    assert features.ndim == 2 and len(features) == 3 and np.isfinite(features).all() and features.std(axis=0).max() > 0


# --- folders and specs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FluxImg2ImgPipeline", "FluxInpaintPipeline"])
@torch.no_grad()
def test_a_pipeline_that_changes_images_is_read_for_its_parts(
    kind: str, tmp_path: Path, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    import diffusers

    getattr(diffusers, kind).from_pipe(pipe("flux-dev")).save_pretrained(tmp_path)
    it, other = load(str(tmp_path), prompts=PROMPT, device="cpu", resolution=16), denoiser("flux-dev")
    assert type(it.pipe).__name__ == "FluxPipeline" and it.guidance == 3.5  # theirs is 7
    x, time = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
    assert torch.equal(*(d.forward(x, time, d.condition(["cat"])) for d in (it, other)))


def test_every_related_pipeline_has_the_parts_of_its_family() -> None:
    import diffusers

    for name, family in RELATED.items():
        parts, own = (signature(getattr(diffusers, kind).__init__).parameters for kind in (name, family))
        # whose refiner says in its config what the network says, too
        assert parts.keys() - {"requires_aesthetics_score"} == own.keys()


def test_guidance_in_a_spec(folder: Callable[[str], Path]) -> None:
    it = plugins.load("denoiser", f"diffusers:{folder('flux-dev')}?guidance=1.5&resolution=16", device="cpu")
    assert it.guidance == 1.5 and it.at_resolution(32).guidance == 1.5


# --- a pipeline that is not supported ---------------------------------------------------------------------------------


def test_the_guides_denoiser_of_a_pipeline_is_right_and_short(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "denoiser.md").read_text("utf-8")
    [block] = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "PipelineDenoiser" in code]
    assert len(block.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(block, names)
    it = load(str(save(stable_diffusion_3, tmp_path / "sd3")), prompts=PROMPT, device="cpu")
    own = names["PipelineDenoiser"](it.pipe, it.resolution, PROMPT)
    assert isinstance(own, Denoiser) and own.shape == it.shape
    torch.testing.assert_close(own.encode([photo(1)]), it.encode([photo(1)]), rtol=1e-4, atol=1e-5)
    x_t = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    index, row = torch.tensor([300, 700]), torch.tensor([0, 0, 0])
    for sigma, t in zip(it.schedule.sigma[index, None], (index[:, None] + 0.5) / 1000, strict=True):
        found, expected = (d.predict(x_t, time, row, d.condition(LABELS)) for d, time in ((own, sigma), (it, t)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(torch.stack(own.noise_levels(sigma)), torch.stack(it.noise_levels(t)))
    result = Reranker(own, allocation=FixedTrials(2)).rerank([photo(2)], [LABELS])[0]
    assert sorted(result.ranking) == sorted(LABELS)
