"""Class-conditional U-Nets behind the denoiser port, against generations of diffusers itself."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hybridclf import Denoiser, DiffusionFeatures, FixedTrials, HybridClassifier, InvalidInputError, Reranker
from hybridclf.denoising.weighting import velocity_weights
from hybridclf.errors import UnknownLabelError, UnknownSpecError
from hybridclf.evaluating.errors_by_objective import objectives_of
from hybridclf.ports import take
from hybridclf_adapters.diffusers import from_pipeline, load
from tests.adapters.tiny_classes import PIPELINES, ddpm, save_named, unet
from tests.adapters.tiny_diffusers import dit, save

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
"""From diffusers' own `set_timesteps`."""

LATENT = ("latent", "latent-kl")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(family)`: a pipeline of that family, saved."""
    root = tmp_path_factory.mktemp("classes")
    return lambda name: root / name if (root / name).exists() else save_named(PIPELINES[name], root / name)


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
def denoiser(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """`denoiser(family)`: the same through the adapter."""
    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            loaded[name] = load(str(folder(name)), device="cpu")
        return loaded[name]

    return get


def photo(seed: int, edge: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), dtype=np.uint8))


# --- what diffusers itself does ---------------------------------------------------------------------------------------


@contextmanager
def told(source: Any, number: int) -> Iterator[list[tuple[Tensor, int, Tensor]]]:
    """A pipeline whose sampler asks for a class in a `with` block; what it asks for and gets, (x_t, timestep, output).

    diffusers' samplers of class-conditional U-Nets themselves know no classes.
    """
    heard: list[tuple[Tensor, int, Tensor]] = []
    own = source.unet.forward

    def forward(x: Tensor, t: Any, *_: Any, **options: Any) -> Any:
        output = own(x, t, class_labels=torch.full((len(x),), number), **options | {"return_dict": True})
        heard.append((x, float(t), output.sample))
        return output

    source.unet.forward = forward
    try:
        yield heard
    finally:
        del source.unet.forward


def ddim_of(pipe: Any) -> Any:
    """diffusers' own conversion of an output to x̂0."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(dict(pipe.scheduler.config) | {"clip_sample": False, "thresholding": False})
    scheduler.set_timesteps(1000)
    return scheduler


def noise_of(pipe: Any, output: Tensor, x_t: Tensor, timestep: int) -> Tensor:
    scheduler = ddim_of(pipe)
    x0 = scheduler.step(output[:, : x_t.shape[1]], timestep, x_t).pred_original_sample
    alpha, sigma = (scheduler.alphas_cumprod[timestep] ** 0.5, (1 - scheduler.alphas_cumprod[timestep]) ** 0.5)
    return (x_t - alpha * x0) / sigma


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "learned-variance"])
@torch.no_grad()
def test_predicted_noise_is_what_the_pipeline_computes_when_it_generates(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, source = denoiser(name), pipe(name)
    for label, number in (("dog", 1), ("hen", 2)):
        with told(source, number) as heard:
            source(num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(1))
        assert len(heard) == 2
        for x_t, timestep, output in heard:
            t = torch.tensor([(timestep + 0.5) / 1000])
            predicted = it.predict(x_t, t, torch.tensor([0]), it.condition([label]))
            torch.testing.assert_close(predicted, noise_of(source, output, x_t, int(timestep)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_error_table_of_algorithm_1(name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]) -> None:
    it, source, labels = denoiser(name), pipe(name), [0, "dog", "hen"]
    assert isinstance(it, Denoiser)
    reranker = Reranker(it, allocation=FixedTrials(3), batch_size=4)
    [result] = reranker.rerank([photo(5)], [labels])
    x0, table = latents(name, source, photo(5)), np.zeros((3, 3))
    for trial, t in enumerate(reranker.plan.timesteps(np.arange(3))):
        noise, step = torch.from_numpy(reranker.plan.noise(np.array([trial]))), math.floor(float(t) * 1000)
        x_t = ddim_of(source).add_noise(x0, noise, torch.tensor([step]))
        for c in range(3):
            output = source.unet(x_t, torch.tensor([step]), class_labels=torch.tensor([c])).sample
            table[trial, c] = (noise_of(source, output, x_t, step) - noise).square().sum()
    np.testing.assert_allclose(result.evidence, table, rtol=1e-3)
    assert np.ptp(table, axis=1).min() > 1e-3  # the class matters


def latents(name: str, source: Any, image: Image.Image) -> Tensor:
    """x0 `[1, …]`, with torchvision's preparation of an image of another size."""
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    image = image.convert("L") if name == "grey" else image
    if name not in LATENT:
        image = resize(image, [8], interpolation=Image.Resampling.BICUBIC)
    pixels = pil_to_tensor(image)[None].float() / 127.5 - 1
    if name not in LATENT:
        return pixels
    encoded = source.vqvae.encode(pixels)
    scale = source.vqvae.config.scaling_factor
    return (encoded.latents if name == "latent" else encoded.latent_dist.mean) * scale


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_images_are_encoded_to_what_the_network_was_trained_on(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it = denoiser(name)
    assert it.shape == {"grey": (1, 8, 8), "latent-kl": (4, 8, 8)}.get(name, (3, 8, 8))
    assert it.resolution == (16 if name in LATENT else 8)
    expected = torch.cat([latents(name, pipe(name), photo(i)) for i in range(2)])
    torch.testing.assert_close(it.encode([photo(0), photo(1)]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PIPELINES)
@torch.no_grad()
def test_decoded_images_are_those_of_the_autoencoder_or_the_pixels(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, source = denoiser(name), pipe(name)
    if name in LATENT:
        x0 = torch.randn(2, *it.shape, generator=torch.Generator().manual_seed(0))
        pixels = source.vqvae.decode(x0 / source.vqvae.config.scaling_factor).sample
        expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    else:  # pixels of the network's size are neither resized nor cropped
        images = [photo(i, 8).convert(it.mode) for i in range(2)]
        x0, expected = it.encode(images), np.stack(images).astype(float)
    decoded = it.decode(x0)
    assert decoded.dtype == np.uint8 and decoded.std() > 0
    np.testing.assert_allclose(decoded, expected, atol=1 if name in LATENT else 0)


@pytest.mark.parametrize("name", ["ddim", pytest.param("latent", marks=pytest.mark.slow)])
def test_generated_images_are_the_pipelines_own(
    name: str, denoiser: Callable[[str], Any], pipe: Callable[[str], Any]
) -> None:
    it, source = denoiser(name), pipe(name)
    made = it.generate(["dog", 0], [3, 8])
    for image, number, seed in zip(made, (1, 0), (3, 8), strict=True):
        with told(source, number):
            [expected] = source(generator=torch.Generator().manual_seed(seed)).images
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    assert np.asarray(made[0]).std() > 0
    assert not it.network._forward_pre_hooks


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_names_or_numbers(denoiser: Callable[[str], Any]) -> None:
    it = denoiser("ddpm")
    assert it.n_classes == 5 and not it.takes_prompts
    assert it.condition([0, np.int64(1), np.str_("hen")])["class"].tolist() == [0, 1, 2]
    assert it.condition(["house cat", 4])["class"].tolist() == [0, 4]
    with pytest.raises(UnknownLabelError, match=r"'crane' names the classes \[3, 4\]"):
        it.condition(["crane"])
    with pytest.raises(UnknownLabelError, match="does not know 5; it knows class names and the numbers 0 to 4"):
        it.condition([5])


def test_the_class_without_a_name_is_no_class(denoiser: Callable[[str], Any], tmp_path: Path) -> None:
    it = denoiser("ddpm")
    assert it.unconditional()["class"].tolist() == [5]
    features = DiffusionFeatures(it, batch_size=2).fit_transform([photo(i) for i in range(3)])
    assert features.shape == (3, 32) and np.isfinite(features).all()
    nameless = load(str(save(ddpm, tmp_path / "nameless")), device="cpu")
    assert nameless.n_classes == 6 and nameless.condition([5])["class"].tolist() == [5]
    with pytest.raises(InvalidInputError, match="has not learned what no class is"):
        nameless.unconditional()


def test_names_in_the_networks_own_config(tmp_path: Path) -> None:
    path = save(ddpm, tmp_path / "pipe") / "unet" / "config.json"
    names = {str(i): f"kind {i}" for i in range(6)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
    assert load(str(tmp_path / "pipe"), device="cpu").condition(["kind 5", "kind 0"])["class"].tolist() == [5, 0]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"num_class_embeds": None}, {"class_embed_type": "timestep"}])
def test_a_network_without_classes(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownSpecError, match=r"not conditioned on class numbers .*UNet2DModel\(num_class_embeds=…\)"):
        load(str(save(lambda: ddpm(**options), tmp_path / "pipe")), device="cpu")


def test_latents_without_their_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(UnknownSpecError, match=r"has 4 channels and no VAE.*as an LDMPipeline"):
        load(str(save(lambda: ddpm(in_channels=4, out_channels=4), tmp_path / "pipe")), device="cpu")


def test_a_size_that_the_blocks_cannot_halve(folder: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInputError, match="a multiple of 2, got 9; the model was trained at 8"):
        load(str(folder("ddpm")), resolution=9)
    with pytest.raises(InvalidInputError, match="a multiple of 4, got 18; the model was trained at 16"):
        load(str(folder("latent")), resolution=18)
    it = load(str(folder("ddpm")), resolution=12, device="cpu")
    x0 = it.encode([photo(0)])
    assert it.predict(x0, torch.tensor([0.5]), torch.tensor([0]), it.condition([1])).shape == (1, 3, 12, 12)


# --- in use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grey", "latent-kl"])
def test_half_precision(name: str, folder: Callable[[str], Path], denoiser: Callable[[str], Any]) -> None:
    it, full = load(str(folder(name)), precision="fp16", device="cpu"), denoiser(name)
    x0, t, row = it.encode([photo(0)]), torch.tensor([0.4]), torch.tensor([0, 0])
    assert x0.dtype == torch.float16
    torch.testing.assert_close(x0.float(), full.encode([photo(0)]), rtol=0.02, atol=0.02)
    pair = torch.tensor([0, 1])
    predicted = [d.predict(x0.float(), t, row, take(d.condition([0, 1]), pair)).float() for d in (it, full)]
    torch.testing.assert_close(*predicted, rtol=0.02, atol=0.02)


def test_it_re_ranks_in_a_classifier(folder: Callable[[str], Path], pipe: Callable[[str], Any], tmp_path: Path) -> None:
    X = np.stack([np.asarray(photo(i)) for i in range(4)])

    def answers(denoiser: Any) -> np.ndarray:
        options: dict[str, Any] = {"allocation": FixedTrials(2), "random_state": 0}
        clf = HybridClassifier(lambda images: np.full((len(images), 2), -np.log(2)), denoiser, **options)
        return clf.fit(None, [0, 1]).predict_proba(X)

    by_spec, loaded = answers(f"diffusers:{folder('ddpm')}?device=cpu"), answers(from_pipeline(pipe("ddpm")))
    np.testing.assert_array_equal(by_spec, loaded)
    assert np.ptp(by_spec[:, 0]) > 0


# --- flows ------------------------------------------------------------------------------------------------------------


def euler_flow() -> Any:
    import diffusers

    return diffusers.DDPMPipeline(unet(), diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0))


def solved_flow() -> Any:
    import diffusers

    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.0, "solver_order": 1}
    pipe = dit(1000)
    return diffusers.DiTPipeline(pipe.transformer, pipe.vae, diffusers.DPMSolverMultistepScheduler(**options))


@pytest.mark.parametrize("build", [euler_flow, solved_flow])
@torch.no_grad()
def test_a_flow_is_predicted_to_where_the_pipeline_goes(build: Callable[[], Any], tmp_path: Path) -> None:
    it, source = load(str(save(build, tmp_path / "pipe")), device="cpu"), build()
    source = type(source).from_pretrained(tmp_path / "pipe")  # of the same weights
    source.set_progress_bar_config(disable=True)
    network = source.unet if build is euler_flow else source.transformer
    heard: list[tuple[Tensor, float]] = []
    own = network.forward

    def forward(x: Tensor, *args: Any, **options: Any) -> Any:
        time = options.pop("timestep", args[0] if args else None)
        heard.append((x[:1], float(torch.as_tensor(time).flatten()[0])))
        return own(x, time, class_labels=torch.full((len(x),), 2))

    network.forward = forward
    options = {"generator": torch.Generator().manual_seed(1), "num_inference_steps": 4}
    source(**options | ({} if build is euler_flow else {"class_labels": [2], "guidance_scale": 1.0}))
    assert len(heard) == 4
    for (x_t, time), (goal, later) in itertools.pairwise(heard[1:]):  # at the first level there is no x0 yet
        index, following = ((it.schedule.timestep - at).abs().argmin() for at in (time, later))
        t, sigma, goal_sigma = (index + 0.5) / 1000, it.schedule.sigma[index], it.schedule.sigma[following]
        noise = it.predict(x_t, t[None], torch.tensor([0]), it.condition([2]))
        x0 = (x_t - sigma * noise) / (1 - sigma)
        # the sampler's steps lie between the thousand levels
        torch.testing.assert_close((1 - goal_sigma) * x0 + goal_sigma * noise, goal, rtol=0, atol=3e-2)
        assert (goal - x_t).abs().max() > 0.1


def test_errors_of_a_flow_count_alike_as_velocities_and_it_has_no_bound(tmp_path: Path) -> None:
    it = load(str(save(solved_flow, tmp_path / "pipe")), device="cpu")
    assert it.weighting is velocity_weights
    with pytest.raises(InvalidInputError, match="needs a denoiser that has learned its variance"):
        Reranker(it, allocation=FixedTrials(2), objective="vlb")
    assert "vlb" not in objectives_of(it)
