"""Other schedulers and pipelines of a family that is supported, against generations of diffusers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hybridclf import FixedTrials, InvalidInputError, Reranker
from hybridclf.errors import UnknownSpecError
from hybridclf_adapters._diffusers_schedule import diffusion_schedule
from hybridclf_adapters.diffusers import from_pipeline, load
from tests.adapters.tiny_classes import save_named, unet
from tests.adapters.tiny_diffusers import (
    UNET,
    clip_text,
    save,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
"""From diffusers' own `set_timesteps`."""

PROMPT = "a photo of a {}."
SIZE = {"height": 16, "width": 16}


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def saved(pipe: Any, folder: Path) -> tuple[Any, Any]:
    """A pipeline, saved and loaded by diffusers and by the adapter."""
    import diffusers

    save(lambda: pipe, folder)
    source = diffusers.DiffusionPipeline.from_pretrained(folder)
    source.set_progress_bar_config(disable=True)
    return source, load(str(folder), prompts=PROMPT, device="cpu")


Heard = list[tuple[Tensor, float, Tensor]]


def overheard(source: Any, call: Callable[[], Any]) -> Heard:
    """What a generation asks the network for and gets: (x_t, timestep, output)."""
    heard: Heard = []
    hook = source.unet.register_forward_hook(lambda _, args, output: heard.append((args[0], float(args[1]), output[0])))
    call()
    hook.remove()
    assert heard
    return heard


def check(it: Any, heard: Heard, label: Any, noise: Callable[[Tensor, float, Tensor], Tensor]) -> None:
    """Compare the denoiser's predictions with the noise that is in what was heard."""
    for x_t, timestep, output in heard:
        index = int((it.schedule.timestep - timestep).abs().argmin())
        assert it.schedule.timestep[index].item() == pytest.approx(timestep, abs=1e-4)
        t = torch.tensor([(index + 0.5) / len(it.schedule.alpha)])
        predicted = it.predict(x_t.float(), t, torch.tensor([0]), it.condition([label]))
        torch.testing.assert_close(predicted, noise(x_t, timestep, output), rtol=1e-3, atol=1e-4)


# --- EDM's preconditioning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("options", [{}, {"sigma_data": 1.0, "prediction_type": "v_prediction", "rho": 5.0}])
def test_edm_is_the_schedulers_own_preconditioning(kind: str, options: dict[str, Any]) -> None:
    import diffusers

    scheduler = getattr(diffusers, kind)(**options)
    schedule = diffusion_schedule(scheduler)
    x0, noise, output = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i in (0, 7, 500, len(schedule.alpha) - 1):
        level = scheduler.sigmas[:-1].double().flip(0)[i]
        noised = x0 + level * noise
        x_t = schedule.alpha[i] * x0 + schedule.sigma[i] * noise
        torch.testing.assert_close(x_t, scheduler.precondition_inputs(noised, level), rtol=1e-5, atol=1e-6)
        assert schedule.timestep[i] == pytest.approx(scheduler.precondition_noise(level).item(), abs=1e-5)
        denoised = scheduler.precondition_outputs(noised, output, level)
        predicted = schedule.noise(output, x_t, torch.tensor([i]))
        torch.testing.assert_close(predicted, (noised - denoised) / level, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@torch.no_grad()
def test_an_xl_with_edm(kind: str, tmp_path: Path) -> None:
    import diffusers

    pipe = stable_diffusion_xl()
    pipe.register_modules(scheduler=getattr(diffusers, kind)())
    source, it = saved(pipe, tmp_path / "pipe")
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent"}
    generator = torch.Generator().manual_seed(1)
    heard = overheard(source, lambda: source(PROMPT.format("hen"), **SIZE, **options, generator=generator))

    def noise(x_t: Tensor, timestep: float, output: Tensor) -> Tensor:
        level = np.exp(4 * timestep)
        noised = x_t * (level**2 + 0.25) ** 0.5
        return (noised - source.scheduler.precondition_outputs(noised.double(), output, level)).float() / level

    check(it, heard, "hen", noise)


@torch.no_grad()
def test_a_class_conditional_u_net_with_edm(tmp_path: Path) -> None:
    import diffusers

    it = load(str(save_named(lambda: diffusers.DDPMPipeline(unet(), diffusers.EDMEulerScheduler()), tmp_path)))
    [result] = Reranker(it, allocation=FixedTrials(2)).rerank([photo()], [["dog", "hen", 0]])
    assert np.isfinite(result.evidence).all() and np.ptp(result.evidence) > 0
    with pytest.raises(InvalidInputError, match="samples from no class-conditional U-Net with a EDMEulerScheduler"):
        it.generate(["dog"], [0])


# --- models distilled to few steps ------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_class_conditional_consistency_model(tmp_path: Path) -> None:
    import diffusers

    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    folder = save_named(lambda: diffusers.ConsistencyModelPipeline(unet(), scheduler), tmp_path)
    source, it = diffusers.ConsistencyModelPipeline.from_pretrained(folder), load(str(folder), device="cpu")
    source.set_progress_bar_config(disable=True)
    assert len(it.schedule.alpha) == 39  # of 40: at the lowest, the prediction is the input
    call = {"class_labels": [2], "num_inference_steps": None, "timesteps": [22, 0], "output_type": "np"}
    heard = overheard(source, lambda: source(**call, generator=torch.Generator().manual_seed(1)))

    def noise(x_t: Tensor, timestep: float, output: Tensor) -> Tensor:
        level = torch.tensor(np.exp(timestep / 250))
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(level)
        noised = x_t * (level**2 + 0.25) ** 0.5
        return ((noised - c_skip * noised - c_out * output) / level).float()

    check(it, heard, "hen", noise)
    first, again = it.generate(["hen"], [3]), source(class_labels=2, generator=torch.Generator().manual_seed(3)).images
    assert np.abs(np.asarray(first[0]).astype(int) - np.asarray(again[0]).astype(int)).max() <= 1


@pytest.mark.parametrize("scale", [None, 3.0])
@torch.no_grad()
def test_a_latent_consistency_model(scale: float | None, tmp_path: Path) -> None:
    """Asked at the levels it was distilled at, with the guidance scale as its network takes it."""
    import diffusers

    parts = stable_diffusion(time_cond_proj_dim=16).components | {
        "scheduler": diffusers.LCMScheduler(clip_sample=False)
    }
    pipe = diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    source, it = saved(pipe, tmp_path / "pipe")
    assert it.guidance == 8.5
    it = it if scale is None else it.with_guidance(scale)
    assert it.schedule.timestep.tolist() == list(range(19, 1000, 20))
    options = {"num_inference_steps": 3, "guidance_scale": it.guidance, "output_type": "latent"}
    generator = torch.Generator().manual_seed(1)
    heard = overheard(source, lambda: source(PROMPT.format("hen"), **SIZE, **options, generator=generator))
    check(it, heard, "hen", lambda x_t, timestep, output: output)
    alpha = source.scheduler.alphas_cumprod[[19, 999]] ** 0.5
    torch.testing.assert_close(it.noise_levels(torch.tensor([0.001, 0.999]))[0], alpha)


def test_only_a_distilled_u_net_takes_guidance(tmp_path: Path) -> None:
    _, it = saved(stable_diffusion(), tmp_path / "pipe")
    assert it.guidance is None
    with pytest.raises(InvalidInputError, match="takes no guidance"):
        it.with_guidance(2.0)


# --- pipelines that start from an image -------------------------------------------------------------------------------


def refiner() -> Any:
    import diffusers

    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    width = {"projection_class_embeddings_input_dim": 5 * 8 + 32, "cross_attention_dim": 32}
    network = diffusers.UNet2DConditionModel(**UNET | added | width)
    base = stable_diffusion_xl().components
    parts = base | {"unet": network, "text_encoder": None, "tokenizer": None, "text_encoder_2": clip_text(True)}
    return diffusers.StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True, add_watermarker=False)


@torch.no_grad()
def test_xls_refiner(tmp_path: Path) -> None:
    source, it = saved(refiner(), tmp_path / "pipe")
    assert it.refines and it.schedule.timestep.tolist() == list(range(200))
    options: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 1.0, "output_type": "latent"}
    generator = torch.Generator().manual_seed(1)
    call = {"prompt": PROMPT.format("hen"), "image": photo(), "strength": 0.15}
    heard = overheard(source, lambda: source(**call, **options, generator=generator))
    check(it, heard, "hen", lambda x_t, timestep, output: output)
    assert torch.equal(it.encode([photo()]), from_pipeline(source, prompts=PROMPT).encode([photo()]))


CASES = {
    "StableDiffusionImg2ImgPipeline": stable_diffusion,
    "StableDiffusionInpaintPipeline": stable_diffusion,
    "StableDiffusionXLImg2ImgPipeline": stable_diffusion_xl,
    "StableDiffusionXLInpaintPipeline": stable_diffusion_xl,
    "StableDiffusion3Img2ImgPipeline": stable_diffusion_3,
    "StableDiffusion3InpaintPipeline": stable_diffusion_3,
    "LatentConsistencyModelImg2ImgPipeline": lambda: stable_diffusion(time_cond_proj_dim=16),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_its_denoiser_is_that_of_the_same_parts(name: str, tmp_path: Path) -> None:
    import diffusers

    pipe, kind = CASES[name](), getattr(diffusers, name)
    options = {"requires_safety_checker": False} if name.startswith(("StableDiffusionI", "Latent")) else {}
    source, it = saved(kind(**pipe.components, **options), tmp_path / "pipe")
    pipe.save_pretrained(tmp_path / "plain")
    plain, made = load(str(tmp_path / "plain"), prompts=PROMPT, device="cpu"), from_pipeline(source, prompts=PROMPT)
    x0, t, row = plain.encode([photo()]), torch.tensor([0.4]), torch.tensor([0])
    for denoiser in (it, made):
        assert not isinstance(denoiser.pipe, kind)
        assert torch.equal(denoiser.encode([photo()]), x0)
        answers = [d.predict(x0, t, row, d.condition(["hen"])) for d in (denoiser, plain)]
        if "Latent" not in name:  # whose plain form is asked with another default of the guidance scale
            assert torch.equal(*answers)


def test_a_related_pipelines_parts_keep_their_types() -> None:
    """They are the user's: from_pipe would cast them to float32 in place."""
    import diffusers

    parts = stable_diffusion().components
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False).to(torch.bfloat16)
    it = from_pipeline(pipe, prompts=PROMPT)
    assert it.dtype == pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.bfloat16
    assert it.network is pipe.unet


def test_an_inpainting_network_that_is_told_the_mask(tmp_path: Path) -> None:
    import diffusers

    parts = stable_diffusion(in_channels=9).components
    pipe = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    save(lambda: pipe, tmp_path / "pipe")
    with pytest.raises(UnknownSpecError, match="takes 9 channels and predicts 4: it must be told a mask or another"):
        load(str(tmp_path / "pipe"), device="cpu")
