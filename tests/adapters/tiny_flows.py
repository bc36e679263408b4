"""Small pipelines of the newer text-to-image families: real configs, tokenizers of a small vocabulary, random weights."""

from collections.abc import Callable
from typing import Any

from tests.adapters.tiny_diffusers import clip_text, clip_tokenizer, t5_text, t5_tokenizer, vae

SHIFTED_VAE = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
"""Scale and shift of FLUX.1's VAE."""

DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0}


def flux(guidance: bool = True) -> Any:
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    )
    return diffusers.FluxPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**DYNAMIC if guidance else {}),
        vae=vae(4, **SHIFTED_VAE),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
    )


def flux_schnell() -> Any:
    return flux(guidance=False)


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux-dev": flux,
    "flux-schnell": flux_schnell,
}
