"""Small class-conditional U-Nets in pipelines of diffusers, with real configs and random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.adapters.tiny_diffusers import save, vae

NAMES = ("cat, house cat", "dog", "hen", "crane", "crane")

UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "num_class_embeds": 6,
}


def unet(**options: Any) -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(**UNET | options)


def ddpm(**options: Any) -> Any:
    import diffusers

    return diffusers.DDPMPipeline(unet(**options), diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"))


def grey() -> Any:
    return ddpm(in_channels=1, out_channels=1)


def learned_variance() -> Any:
    import diffusers

    return diffusers.DDPMPipeline(unet(out_channels=6), diffusers.DDPMScheduler(variance_type="learned_range"))


def ddim() -> Any:
    import diffusers

    return diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(prediction_type="v_prediction"))


def vq() -> Any:
    from diffusers import VQModel

    return VQModel(
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        num_vq_embeddings=16,
    )


def latent(autoencoder: Callable[[], Any] = vq, channels: int = 3) -> Any:
    import diffusers

    parts = {"vqvae": autoencoder(), "unet": unet(in_channels=channels, out_channels=channels)}
    return diffusers.LDMPipeline(**parts, scheduler=diffusers.DDIMScheduler(clip_sample=False))


def latent_kl() -> Any:
    return latent(vae, 4)


PIPELINES: dict[str, Callable[[], Any]] = {
    "ddpm": ddpm,
    "grey": grey,
    "learned-variance": learned_variance,
    "ddim": ddim,
    "latent": latent,
    "latent-kl": latent_kl,
}


def save_named(build: Callable[[], Any], folder: Path) -> Path:
    """Save a pipeline, and the names of its classes in its index; the last class has none."""
    path = save(build, folder) / "model_index.json"
    names = {str(i): name for i, name in enumerate(NAMES)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
    return folder
