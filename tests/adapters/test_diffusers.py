"""diffusers pipelines behind the denoiser port, against the pipelines themselves."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from hybridclf import Denoiser, FixedTrials, HybridClassifier, InvalidInputError, Reranker, Staged
from hybridclf.denoising.evaluator import EvaluationErrors, Rows
from hybridclf.devices import can_compile
from hybridclf.ports import DecodingDenoiser, take
from hybridclf_adapters.diffusers import load
from tests.adapters.tiny_diffusers import PIPELINES, save, stable_diffusion, stable_diffusion_3

PROMPT = "a photo of a {}."
LABELS = ["cat", "dog", "cow", "hen"]
SIZE = 16
FAMILIES = [*PIPELINES, "sd3-dynamic", "sd3-without-t5", "sd-sample"]

NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
"""From diffusers' own `set_timesteps`, which the adapter does not call."""


def build(name: str) -> Callable[[], Any]:
    return {
        "sd3-dynamic": lambda: stable_diffusion_3(use_dynamic_shifting=True),
        "sd3-without-t5": lambda: stable_diffusion_3(t5=False),
        "sd-sample": lambda: stable_diffusion("sample"),
    }.get(name) or PIPELINES[name]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(family)`: a pipeline of that family, saved."""
    root, saved = tmp_path_factory.mktemp("diffusers"), {}

    def get(name: str) -> Path:
        if name not in saved:
            saved[name] = save(build(name), root / name)
        return saved[name]

    return get


@pytest.fixture(scope="session")
def pipe(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """`pipe(family)`: the same as diffusers loads it, on its own."""
    import diffusers

    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3-without-t5" else {}
            loaded[name] = diffusers.DiffusionPipeline.from_pretrained(folder(name), **absent)
            loaded[name].set_progress_bar_config(disable=True)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def denoiser(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """`denoiser(family)`: the same through the adapter."""
    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            loaded[name] = load(str(folder(name)), prompts=PROMPT, device="cpu")
        return loaded[name]

    return get


def labels_of(name: str) -> list[Any]:
    return [0, 1, "hen", 4] if name == "dit" else LABELS


def photo(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# --- what diffusers itself does, by hand ------------------------------------------------------------------------------


def output_of(pipe: Any, label: Any, x_t: Tensor, timestep: Tensor) -> Tensor:
    """The network's output `[1, …]` for x_t `[1, …]`, timestep `[1]` and a label, called as each pipeline does."""
    kind, prompt = type(pipe).__name__, PROMPT.format(label)
    if kind == "DiTPipeline":
        number = {"hen": 3}.get(label, label)
        return pipe.transformer(x_t, timestep=timestep, class_labels=torch.tensor([number])).sample
    if kind == "StableDiffusionPipeline":
        return pipe.unet(x_t, timestep, pipe.encode_prompt(prompt, "cpu", 1, False)[0]).sample
    if kind == "IFPipeline":
        return pipe.unet(x_t, timestep, pipe.encode_prompt(prompt, False)[0]).sample
    if kind == "StableDiffusionXLPipeline":
        text, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]])}
        return pipe.unet(x_t, timestep, text, added_cond_kwargs=added).sample
    if kind == "StableDiffusion3Pipeline":
        text, _, pooled, _ = pipe.encode_prompt(prompt, prompt, prompt, do_classifier_free_guidance=False)
        return pipe.transformer(x_t, text, pooled, timestep).sample
    text, mask, _, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    added = {"resolution": None, "aspect_ratio": None}
    if pipe.transformer.use_additional_conditions:
        added = {"resolution": torch.tensor([[16.0, 16.0]]), "aspect_ratio": torch.tensor([[1.0]])}
    return pipe.transformer(x_t, text, timestep, added, encoder_attention_mask=mask).sample


class Noising:
    """The family's schedule as diffusers has it: timesteps by index, x_t, and ε̂ through the scheduler's own x̂0."""

    def __init__(self, pipe: Any) -> None:
        from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

        self.flow = isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
        self.scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
        if self.flow and self.scheduler.config.use_dynamic_shifting:
            from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

            self.scheduler.set_timesteps(1000, mu=calculate_shift(4 * 4, 256, 4096, 0.5, 1.15))
        if not self.flow:
            config = dict(pipe.scheduler.config) | {"clip_sample": False, "thresholding": False}
            self.ddim = DDIMScheduler.from_config(config)
            self.ddim.set_timesteps(1000)

    def timestep(self, index: int) -> Tensor:
        return self.scheduler.timesteps[999 - index][None] if self.flow else torch.tensor([index])

    def x_t(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        if self.flow:
            return self.scheduler.scale_noise(x0, timestep, noise)
        return self.ddim.add_noise(x0, noise, timestep)

    def noise(self, output: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
        """(x_t − α·x̂0)/σ of the x̂0 that the scheduler makes of the output."""
        output = output[:, : x_t.shape[1]]
        one, zero = torch.ones(1, 1), torch.zeros(1, 1)
        alpha, sigma = self.x_t(one, zero, timestep), self.x_t(zero, one, timestep)
        if self.flow:  # one step down to σ = 0
            step = type(self.scheduler)(shift=1.0)
            step.set_timesteps(sigmas=[sigma.item()])
            x0 = step.step(output, step.timesteps[0], x_t).prev_sample
        else:
            x0 = self.ddim.step(output, timestep.item(), x_t).pred_original_sample
        return (x_t - alpha * x0) / sigma


noising_of = lru_cache(maxsize=None)(Noising)


def latents(name: str, pipe: Any, image: Image.Image) -> Tensor:
    """x0 `[1, …]` of an image that has the right size."""
    from diffusers.image_processor import VaeImageProcessor

    pixels = getattr(pipe, "image_processor", VaeImageProcessor(vae_scale_factor=2)).preprocess(image)
    if name == "if":
        return pixels
    mean = pipe.vae.encode(pixels).latent_dist.mean
    if name.startswith("sd3"):
        return (mean - 0.0609) * 1.5305
    return mean * (0.13025 if name == "sdxl" else 0.18215)


def level(t: float) -> int:
    return math.floor(t * 1000)


# --- ε̂, noising, encoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_a_denoiser_of_pairs(name: str, denoiser: Callable[[str], Any]) -> None:
    it = denoiser(name)
    assert isinstance(it, Denoiser)
    assert it.cost_unit == "evaluation"
    assert it.dtype == torch.float32
    assert it.device == torch.device("cpu")
    assert it.shape == {"i": (3, 16, 16), "3": (16, 8, 8)}.get("3" if "sd3" in name else name[0], (4, 8, 8))
    assert not any(
        p.requires_grad or m.training
        for m in it.pipe.components.values()
        if isinstance(m, torch.nn.Module)
        for p in m.parameters()
    )


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_predicted_noise_is_what_the_network_called_by_hand_gives(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, noising, labels = denoiser(name), noising_of(pipe(name)), labels_of(name)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(3, *it.shape, generator=generator)
    t, row, number = torch.tensor([0.0315, 0.5, 0.9005]), torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 3, 0])
    predicted = it.predict(x_t, t, row, take(it.condition(labels), number))
    assert predicted.shape == (5, *it.shape)
    for p, (r, c) in enumerate(zip(row.tolist(), number.tolist(), strict=True)):
        timestep = noising.timestep(level(t[r].item()))
        expected = noising.noise(output_of(pipe(name), labels[c], x_t[r : r + 1], timestep), x_t[r : r + 1], timestep)
        torch.testing.assert_close(predicted[p : p + 1], expected, rtol=1e-4, atol=2e-5)
    assert (predicted[0] - predicted[1]).abs().max() > 1e-3  # the label matters


CALLS: dict[str, dict[str, Any]] = {
    "sd3": {"sigmas": [0.8, 0.3]},
    "sd3-without-t5": {"sigmas": [0.8, 0.3]},
    "pixart": {"use_resolution_binning": False, "clean_caption": False},
    "pixart-sigma": {"use_resolution_binning": False, "clean_caption": False},
    "if": {"clean_caption": False},
}


@NUMPY_2
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("sd3-dynamic", "pixart-sizes")])
def test_predicted_noise_is_what_the_pipeline_computes_when_it_generates(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """Every network call of a real generation, overheard and repeated through the port."""
    it, source, heard = denoiser(name), pipe(name), []
    network = source.transformer if hasattr(source, "transformer") else source.unet

    def overhear(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x_t = args[0] if args else kwargs["hidden_states"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        heard.append((x_t, timestep.reshape(-1)[:1], output[0] if isinstance(output, tuple) else output.sample))

    hook = network.register_forward_hook(overhear, with_kwargs=True)
    generator = torch.Generator().manual_seed(1)
    options = {"guidance_scale": 1.0, "num_inference_steps": 2, "generator": generator} | CALLS.get(name, {})
    if name == "dit":
        source([3], output_type="np", **options)
    else:
        size = {"height": SIZE, "width": SIZE}
        source(PROMPT.format("hen"), output_type="np" if name == "if" else "latent", **size, **options)
    hook.remove()

    condition = it.condition(["hen"])
    noising = noising_of(source)
    assert len(heard) >= 2
    for x_t, timestep, output in heard:
        if noising.flow:
            index = int((noising.scheduler.timesteps.flip(0) - timestep).abs().argmin())
            timestep = noising.timestep(index)
        else:
            index = int(timestep)
        predicted = it.predict(x_t, torch.tensor([(index + 0.5) / 1000]), torch.tensor([0]), condition)
        expected = noising.noise(output, x_t, timestep.long() if not noising.flow else timestep)
        torch.testing.assert_close(predicted, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_noise_levels_are_the_schedulers(name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    it, noising = denoiser(name), noising_of(pipe(name))
    x0, noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in (0.0001, 0.0015, 0.25, 0.4995, 0.7, 0.9999):
        alpha, sigma = it.noise_levels(torch.tensor([t]))
        expected = noising.x_t(x0[None], noise[None], noising.timestep(level(t)))
        torch.testing.assert_close(alpha * x0[None] + sigma * noise[None], expected, rtol=1e-6, atol=1e-6)


@NUMPY_2
def test_noise_levels_are_those_of_the_pipelines_own_scheduler_too(
    denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    """Schedulers in σ form noise x0 + (σ/α)·ε and scale the network's input; others noise as we do."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in ("sd-epsilon", "sdxl", "pixart", "if", "dit"):
        scheduler = pipe(name).scheduler.from_config(pipe(name).scheduler.config)
        timestep = torch.tensor([400])
        if name == "pixart":
            scheduler.set_timesteps(timesteps=[400])
        x_t = scheduler.add_noise(x0, noise, timestep)
        alpha, sigma = denoiser(name).noise_levels(torch.tensor([0.4005]))
        if name == "sdxl":
            x_t = scheduler.scale_model_input(x_t, timestep[0])
        torch.testing.assert_close(alpha * x0 + sigma * noise, x_t, rtol=1e-5, atol=1e-5)


def test_every_level_can_be_reached_and_float32_rounds_none_away(denoiser: Callable[[str], Any]) -> None:
    schedule = denoiser("sd-epsilon").schedule
    for n in (1, 3, 50, 250, 500, 1000):
        index = np.arange(n)
        t = torch.from_numpy(((index + 0.5) / n).astype(np.float32))
        assert schedule.index(t).tolist() == ((2 * index + 1) * 1000 // (2 * n)).tolist()
    assert schedule.index(torch.tensor([0.0, 1.0, 2.0])).tolist() == [0, 999, 999]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_images_are_encoded_as_the_pipeline_does(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    images = [photo(i) for i in range(2)]
    expected = torch.cat([latents(name, pipe(name), image) for image in images])
    torch.testing.assert_close(denoiser(name).encode(images), expected, rtol=1e-5, atol=1e-5)
    arrays = np.stack([np.asarray(image) for image in images])
    assert torch.equal(denoiser(name).encode(arrays), denoiser(name).encode(images))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_latents_are_decoded_as_the_pipeline_does(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    from diffusers.image_processor import VaeImageProcessor

    it, source = denoiser(name), pipe(name)
    assert isinstance(it, DecodingDenoiser)
    x0 = torch.randn(2, *it.shape, generator=torch.Generator().manual_seed(0))
    if name == "if":
        expected = x0
    elif name.startswith("sd3"):
        expected = source.vae.decode(x0 / 1.5305 + 0.0609).sample
    else:
        expected = source.vae.decode(x0 / (0.13025 if name == "sdxl" else 0.18215)).sample
    processed = VaeImageProcessor().postprocess(expected, output_type="pil")
    decoded = it.decode(x0)
    assert decoded.shape == (2, SIZE, SIZE, 3) and decoded.dtype == np.uint8 and decoded.std() > 0
    np.testing.assert_allclose(decoded.astype(int), np.stack(processed).astype(int), atol=1)


# --- Algorithms 1 and 2 of arXiv 2303.16203, with diffusers alone -----------------------------------------------------


def plain_error(name: str, pipe: Any, x0: Tensor, label: Any, t: float, noise: np.ndarray) -> float:
    """In ε, or in the velocity that a flow was trained in."""
    noising, eps = noising_of(pipe), torch.from_numpy(noise)
    timestep = noising.timestep(level(t))
    x_t = noising.x_t(x0, eps, timestep)
    output = output_of(pipe, label, x_t, timestep)
    if noising.flow:
        return (output - (eps - x0)).square().sum().item()
    return (noising.noise(output, x_t, timestep) - eps).square().sum().item()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_error_table_of_algorithm_1(name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    reranker = Reranker(denoiser(name), allocation=FixedTrials(3), batch_size=5)
    labels, image = labels_of(name)[:3], photo(5)
    [result] = reranker.rerank([image], [labels])
    t, x0 = reranker.plan.timesteps(np.arange(3)), latents(name, pipe(name), image)
    table = np.zeros((3, 3))
    for c, label in enumerate(labels):
        for trial in range(3):
            noise = reranker.plan.noise(np.array([trial]))
            table[trial, c] = plain_error(name, pipe(name), x0, label, float(t[trial]), noise)
    np.testing.assert_allclose(result.evidence, table, rtol=1e-3)
    assert result.ranking[0] == labels[table.mean(axis=0).argmin()]


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_error_table_of_algorithm_2(name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    keep, trials = (2, 1), (2, 4)
    reranker = Reranker(denoiser(name), allocation=Staged(keep, trials), batch_size=3)
    labels, image = labels_of(name), photo(6)
    [result] = reranker.rerank([image], [labels])
    x0 = latents(name, pipe(name), image)

    errors: dict[int, list[float]] = {c: [] for c in range(len(labels))}
    remaining = list(errors)
    for n_keep, n_trials in zip(keep, trials, strict=True):
        for c in remaining:
            while len(errors[c]) < n_trials:
                position = np.array([len(errors[c])])
                t, noise = float(reranker.plan.timesteps(position)[0]), reranker.plan.noise(position)
                errors[c].append(plain_error(name, pipe(name), x0, labels[c], t, noise))
        remaining = sorted(remaining, key=lambda c: np.mean(errors[c]))[:n_keep]

    table = np.full((trials[-1], len(labels)), np.nan)
    for c, column in errors.items():
        table[: len(column), c] = column
    np.testing.assert_allclose(result.evidence, table, rtol=1e-3)
    assert result.ranking[0] == labels[remaining[0]]
    assert result.evaluations == 4 * 2 + 2 * 2


@pytest.mark.parametrize("name", ["sd-epsilon", "sdxl", "sd3"])
def test_errors_of_several_prompts_are_the_mean_of_each_ones(name: str, folder: Callable[[str], Path]) -> None:
    templates = ["a photo of a {}.", "a dog and a {}", "{}"]

    def rerank(prompts: str | list[str]) -> Any:
        it = load(str(folder(name)), prompts=prompts, device="cpu")
        return Reranker(it, allocation=FixedTrials(2), batch_size=4).rerank([photo(5)], [LABELS[:3]])[0]

    several, singles = rerank(templates), [rerank(template) for template in templates]
    np.testing.assert_allclose(several.evidence, np.mean([s.evidence for s in singles], axis=0), rtol=1e-4)
    assert several.evaluations == 3 * singles[0].evaluations == 3 * 2 * 3
    assert np.ptp([s.evidence for s in singles], axis=0).min() > 1e-3  # the prompts do matter


# --- work that is shared ----------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(folder: Callable[[str], Path]) -> Callable[..., Any]:
    """`fresh(family, **options)`: loaded anew, with nothing kept."""
    return lambda name, **options: load(str(folder(name)), **{"prompts": PROMPT, "device": "cpu"} | options)


def test_a_prompt_is_encoded_once(fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    it, encoded = fresh("sd-epsilon"), []
    encode = it.embed
    monkeypatch.setattr(it, "embed", lambda prompts: (encoded.extend(dict.fromkeys(prompts)), encode(prompts))[1])
    first = it.condition(LABELS)["text"]
    again = it.condition([*reversed(LABELS), "fox"])["text"]
    assert encoded == [PROMPT.format(label) for label in [*LABELS, "fox"]]
    assert torch.equal(again[:4].flip(0), first)


def test_prompts_least_recently_asked_for_are_forgotten(
    fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = fresh("sd-epsilon")
    rows = it.condition(LABELS)["text"]
    it._embeddings.limit = 2 * rows[0].nbytes
    assert torch.equal(it.condition(LABELS)["text"], rows)  # more than is kept, and all there
    assert list(it._embeddings._known) == [PROMPT.format(label) for label in LABELS[-2:]]
    assert it._embeddings._bytes == 2 * rows[0].nbytes


@pytest.mark.parametrize("name", ["sd-epsilon", "pixart", "sd3"])
def test_neither_embedding_nor_latent_depends_on_its_companions(name: str, fresh: Callable[..., Any]) -> None:
    it, others = fresh(name), fresh(name)
    together = others.condition([*LABELS, "fox", "owl", "bee", "ant", "elk"])
    for i, label in enumerate(LABELS):
        alone = it.condition([label])
        assert all(torch.equal(alone[key][0], together[key][i]) for key in alone)
    images = [photo(i) for i in range(3)]
    assert torch.equal(it.encode(images)[1], it.encode(images[1:2])[0])


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(name: str, dtype: str, fresh: Callable[..., Any], denoiser: Callable[[str], Any]) -> None:
    it, full = fresh(name, precision={"float16": "fp16", "bfloat16": "bf16"}[dtype]), denoiser(name)
    assert it.dtype == getattr(torch, dtype)
    tolerance = {"float16": 0.02, "bfloat16": 0.15}[dtype]
    x0, labels = it.encode([photo(0)]), labels_of(name)
    assert x0.dtype == it.dtype
    torch.testing.assert_close(x0.float(), full.encode([photo(0)]), rtol=tolerance, atol=tolerance)
    t, row = torch.tensor([0.4]), torch.tensor([0, 0])
    alpha, sigma = it.noise_levels(t)
    assert alpha.dtype == torch.float32
    noise = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    predicted = [
        d.predict(alpha * x0 + sigma * noise, t, row, take(d.condition(labels), torch.tensor([0, 1])))
        for d in (it, full)
    ]
    torch.testing.assert_close(predicted[0].float(), predicted[1], rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("native_bfloat16")
def test_bfloat16_is_the_default_of_a_processor_that_multiplies_it(fresh: Callable[..., Any]) -> None:
    assert (fresh("sd-epsilon").dtype, fresh("sd-epsilon", precision="fp32").dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_cast_later_is_loaded_so(name: str, precision: str, fresh: Callable[..., Any]) -> None:
    cast, loaded = fresh(name), fresh(name, precision=precision)
    cast.condition(labels_of(name))  # in float32, to be forgotten
    torch.nn.ModuleDict(cast.networks).to(loaded.dtype)
    cast.follow(loaded.device, loaded.dtype)
    for part, network in loaded.networks.items():
        types = {name: p.dtype for name, p in network.named_parameters()}
        assert {name: p.dtype for name, p in cast.networks[part].named_parameters()} == types
    for key, value in loaded.condition(labels_of(name)).items():
        torch.testing.assert_close(cast.condition(labels_of(name))[key], value, rtol=0.01, atol=0.01)
    assert torch.equal(cast.encode([photo(0)]), loaded.encode([photo(0)]))


def test_a_vae_that_overflows_in_float16_stays_in_float32(fresh: Callable[..., Any]) -> None:
    assert fresh("sdxl", precision="fp16").pipe.vae.dtype == torch.float32
    assert fresh("sdxl", precision="bf16").pipe.vae.dtype == torch.bfloat16
    assert fresh("sdxl", precision="fp16").network.dtype == torch.float16


@pytest.mark.parametrize("name", PIPELINES)
def test_another_resolution(name: str, fresh: Callable[..., Any]) -> None:
    it = fresh(name, resolution=24)
    edge = 24 if name == "if" else 12
    assert it.shape[1:] == (edge, edge)
    x0 = it.encode([photo(0, (40, 30))])
    assert x0.shape == (1, *it.shape)
    assert it.predict(x0, torch.tensor([0.5]), torch.tensor([0]), it.condition(labels_of(name)[:1])).isfinite().all()


def test_sdxl_is_told_the_resolution(fresh: Callable[..., Any]) -> None:
    it, heard = fresh("sdxl", resolution=24), []
    it.network.register_forward_pre_hook(
        lambda _module, _args, kwargs: heard.append(kwargs["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    it.predict(torch.zeros(1, *it.shape), torch.tensor([0.5]), torch.tensor([0, 0]), it.condition(["cat", "dog"]))
    assert heard[0].tolist() == [[24, 24, 0, 0, 24, 24]] * 2


# --- DiT --------------------------------------------------------------------------------------------------------------


def test_dit_classes_by_number_and_by_name(denoiser: Callable[[str], Any]) -> None:
    names = [0, np.int64(1), np.str_("hen"), "Struthio camelus"]
    assert denoiser("dit").condition(names)["class"].tolist() == [0, 1, 3, 4]
    assert denoiser("dit").condition(["tench, Tinca tinca", 9])["class"].tolist() == [0, 9]


@torch.no_grad()
def test_dits_log_variance_is_the_schedulers(denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    from diffusers import DDPMScheduler

    it, source = denoiser("dit"), pipe("dit")
    scheduler = DDPMScheduler.from_config(source.scheduler.config, variance_type="learned_range")
    x_t = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0))
    for index in (1, 2, 500, 999):
        t, row = torch.tensor([(index + 0.5) / 1000]), torch.tensor([0])
        noise, log_variance = it.predict_variance(x_t, t, row, it.condition([3]))
        output, share = source.transformer(x_t, torch.tensor([index]), torch.tensor([3])).sample.chunk(2, dim=1)
        torch.testing.assert_close(noise, output, rtol=1e-4, atol=1e-5)
        expected = scheduler._get_variance(index, predicted_variance=share)
        torch.testing.assert_close(log_variance, expected, rtol=1e-4, atol=1e-4)
    first, second = (it.schedule.log_variance_bounds()[0][i].item() for i in (0, 1))
    assert first == second  # where diffusers has log 1e-20


def plain_bound(pipe: Any, x0: Tensor, label: int, index: int, noise: Tensor) -> float:
    """Bits of one trial past the first level: torch's own KL divergence of what diffusers' DDPM scheduler steps to."""
    from diffusers import DDPMScheduler

    config = dict(pipe.scheduler.config) | {"clip_sample": False}
    small = DDPMScheduler.from_config(config, variance_type="fixed_small")
    learned = DDPMScheduler.from_config(config, variance_type="learned_range")
    x_t = small.add_noise(x0, noise, torch.tensor([index]))
    output, share = output_of(pipe, label, x_t, torch.tensor([index])).double().chunk(2, dim=1)
    means = [
        small.step(eps, index, x_t.double(), generator=torch.Generator().manual_seed(0)).prev_sample
        for eps in (noise.double(), output)  # the same sample's noise on both: it cancels
    ]
    true = Normal(means[0], small._get_variance(index).double().sqrt())
    model = Normal(means[1], (learned._get_variance(index, predicted_variance=share) / 2).exp())
    return kl_divergence(true, model).sum().item() / math.log(2)


@pytest.mark.parametrize("objective", ["vlb", "l2+vlb"])
@torch.no_grad()
def test_dits_bound_is_what_its_scheduler_gives(
    objective: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    reranker = Reranker(denoiser("dit"), allocation=FixedTrials(3), objective=objective, batch_size=4)
    [result] = reranker.rerank([photo(5)], [[0, 1, 3]])
    x0, table = latents("dit", pipe("dit"), photo(5)), np.zeros((3, 3))
    for trial, t in enumerate(reranker.plan.timesteps(np.arange(3))):
        noise = reranker.plan.noise(np.array([trial]))
        for c, label in enumerate([0, 1, 3]):
            table[trial, c] = plain_bound(pipe("dit"), x0, label, level(float(t)), torch.from_numpy(noise))
            if objective == "l2+vlb":
                table[trial, c] += plain_error("dit", pipe("dit"), x0, label, float(t), noise)
    np.testing.assert_allclose(result.evidence, table, rtol=2e-3)


@torch.no_grad()
def test_dits_bound_at_the_first_levels(denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    """The decoder's likelihood of x0 ± 1/255 at the first, with SciPy's normal; a divergence from the second on."""
    it = denoiser("dit")
    t, x0 = torch.tensor([0.0005, 0.0015]), it.encode([photo(5)]).expand(2, -1, -1, -1)
    noise = torch.randn(1, *it.shape, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    alpha, sigma = it.noise_levels(t)
    x_t = alpha.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * noise
    rows, both = Rows(t, alpha, sigma, x0, noise, x_t), np.arange(2)
    first, second = EvaluationErrors(it, "vlb", 2)(rows, both, both * 0, it.condition([3])).tolist()
    assert second == pytest.approx(plain_bound(pipe("dit"), x0[:1], 3, 1, noise[:1]), rel=5e-3)

    predicted, log_variance = it.predict_variance(x_t[:1], t[:1], torch.tensor([0]), it.condition([3]))
    mean = noising_of(pipe("dit")).ddim.step(predicted, 0, x_t[:1]).pred_original_sample
    x, mean, scale = (v.double().numpy() for v in (x0[:1], mean, (log_variance / 2).exp()))
    upper, lower = np.where(x > 0.999, np.inf, x + 1 / 255), np.where(x < -0.999, -np.inf, x - 1 / 255)
    mass = norm.cdf(upper, mean, scale) - norm.cdf(lower, mean, scale)
    assert first == pytest.approx(-np.log2(np.maximum(mass, 1e-12)).sum(), rel=1e-3)
    assert mass.min() < 0.9


@pytest.mark.parametrize("objective", ["vlb", "l2+vlb"])
def test_the_bound_needs_a_learned_variance(objective: str, denoiser: Callable[[str], Any]) -> None:
    it, message = denoiser("sd-epsilon"), "needs a denoiser that has learned its variance.*a StableDiffusion has not"
    with pytest.raises(InvalidInputError, match=message):
        Reranker(it, objective=objective)
    with pytest.raises(InvalidInputError, match=message):
        HybridClassifier(denoiser=it, objective=objective).fit(np.zeros((4, 8, 8)), [0, 0, 1, 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd-epsilon", "dit"])
def test_a_compiled_pipeline_predicts_the_same(name: str, folder: Callable[[str], Path]) -> None:
    if not can_compile(torch.device("cpu")):
        pytest.skip("nothing to compile with")
    made = load(str(folder(name)), prompts=PROMPT, device="cpu")
    labels, x_t, t = labels_of(name), torch.randn(3, *made.shape), torch.tensor([0.2, 0.5, 0.9])
    row, condition = torch.tensor([0, 1, 1, 2]), made.condition(labels)
    plain = made.predict(x_t, t, row, condition)
    made.compile()
    with torch.inference_mode():
        compiled = made.predict(x_t, t, row, condition)
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)
    assert not torch.equal(compiled, plain)  # another arithmetic: it was compiled
