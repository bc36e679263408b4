"""Pipelines of Stable Diffusion's layout with random weights: speed does not depend on what weights are."""

import string
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hybridclf_adapters.diffusers import DiffusersDenoiser, load

__all__ = ["SD_2", "SMALL", "Layout", "denoiser"]

N_TOKENS = 77
LETTERS = string.ascii_lowercase + string.digits + ".,"


@dataclass(frozen=True)
class Layout:
    """Sizes of a pipeline: edge of the latents, of which 8 pixels make one, and the widths of its networks."""

    edge: int
    widths: tuple[int, ...]
    heads: int | tuple[int, ...]
    text_width: int
    layers: int
    vae_widths: tuple[int, ...]


SMALL = Layout(edge=8, widths=(64, 128), heads=4, text_width=128, layers=1, vae_widths=(32, 32, 64, 64))
SD_2 = Layout(
    edge=64,
    widths=(320, 640, 1280, 1280),
    heads=(5, 10, 20, 20),
    text_width=1024,
    layers=2,
    vae_widths=(128, 256, 512, 512),
)
"""Stable Diffusion 2's U-Net and VAE; its text encoder is not needed for long and only has the right width."""


def denoiser(layout: Layout, device: torch.device, precision: str | None = None) -> DiffusersDenoiser:
    """The pipeline as anyone would load it; by default in the adapter's own choice of precision."""
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        with device:
            pipeline = _pipeline(layout)
        pipeline.save_pretrained(folder)
        return load(folder, device=str(device), precision=precision)


def _pipeline(layout: Layout) -> Any:
    return StableDiffusionPipeline(
        vae=_vae(layout),
        text_encoder=_text_encoder(layout),
        tokenizer=_tokenizer(),
        unet=_unet(layout),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(layout: Layout) -> UNet2DConditionModel:
    """Cross-attention at all resolutions but the lowest."""
    crossed = len(layout.widths) - 1
    return UNet2DConditionModel(
        sample_size=layout.edge,
        in_channels=4,
        out_channels=4,
        layers_per_block=layout.layers,
        block_out_channels=layout.widths,
        down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed,
        attention_head_dim=layout.heads,
        cross_attention_dim=layout.text_width,
        use_linear_projection=True,
    )


def _vae(layout: Layout) -> AutoencoderKL:
    n_levels = len(layout.vae_widths)
    return AutoencoderKL(
        latent_channels=4,
        layers_per_block=layout.layers,
        block_out_channels=layout.vae_widths,
        down_block_types=("DownEncoderBlock2D",) * n_levels,
        up_block_types=("UpDecoderBlock2D",) * n_levels,
        sample_size=8 * layout.edge,
    )


def _text_encoder(layout: Layout) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(_words()),
        hidden_size=layout.text_width,
        intermediate_size=layout.text_width,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=N_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config)


def _tokenizer() -> CLIPTokenizer:
    """CLIP's, with no words but letters: prompts are spelt."""
    return CLIPTokenizer({word: i for i, word in enumerate(_words())}, [], model_max_length=N_TOKENS)


def _words() -> list[str]:
    return ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
