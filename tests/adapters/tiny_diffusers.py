"""Small pipelines of every family with real configs, tokenizers of a small vocabulary and random weights."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CLASSES = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "hen", "ostrich, Struthio camelus", "crane")
LETTERS = string.ascii_lowercase + string.digits + ".,'"
WORDS = ("a", "photo", "of", "cat", "dog")

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
}


def clip_tokenizer(max_length: int = 24) -> Any:
    from transformers import CLIPTokenizer

    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS), "of</w>", "ca", "cat</w>"]
    merges = [("o", "f</w>"), ("c", "a"), ("ca", "t</w>")]
    return CLIPTokenizer({t: i for i, t in enumerate(tokens)}, merges, model_max_length=max_length)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces = [*((f"▁{w}", -3.0) for w in WORDS), *((c, -4.0) for c in LETTERS + string.ascii_uppercase)]
    return T5Tokenizer([*special, *pieces], extra_ids=0)


def clip_text(projected: bool = False, hidden: int = 32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=128,
        hidden_size=hidden,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=24,
        projection_dim=hidden,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5_text() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4))


def vae(channels: int = 4, blocks: int = 2, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16,) + (32,) * (blocks - 1),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        sample_size=16,
        **options,
    )


def tiny_vae(channels: int = 4) -> Any:
    """Without a distribution of latents, and with a scale of its own."""
    from diffusers import AutoencoderTiny

    two = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "scaling_factor": 1.25}
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), latent_channels=channels, **two
    )


def asymmetric_vae() -> Any:
    """With a bigger decoder, and a config of other names."""
    from diffusers import AsymmetricAutoencoderKL

    return AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(16, 32),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(16, 32),
        norm_num_groups=8,
        sample_size=16,
    )


def stable_diffusion(prediction: str = "epsilon", **options: Any) -> Any:
    import diffusers

    kind = diffusers.DDIMScheduler if prediction == "sample" else diffusers.PNDMScheduler
    options_of = {"clip_sample": False} if prediction == "sample" else {"skip_prk_steps": True}
    scheduler = kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        **options_of,
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=diffusers.UNet2DConditionModel(**UNET | options),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_v() -> Any:
    return stable_diffusion("v_prediction", use_linear_projection=True, attention_head_dim=(2, 4))


def stable_diffusion_xl() -> Any:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        **UNET
        | {
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "transformer_layers_per_block": (1, 2),
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
            "cross_attention_dim": 64,
        }
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


def stable_diffusion_3(t5: bool = True, **schedule: Any) -> Any:
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=16,
        pos_embed_max_size=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | schedule),
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(projected=True, hidden=16),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projected=True, hidden=16),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


def pixart(pipeline: str = "PixArtAlphaPipeline", **options: Any) -> Any:
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=6,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=48,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        **options,
    )
    return getattr(diffusers, pipeline)(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        vae=vae(),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def pixart_sizes() -> Any:
    return pixart(use_additional_conditions=True)


def pixart_sigma() -> Any:
    return pixart("PixArtSigmaPipeline", use_additional_conditions=False)


def deepfloyd_if() -> Any:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        **UNET
        | {
            "sample_size": 16,
            "in_channels": 3,
            "out_channels": 6,
            "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2,
            "cross_attention_norm": "group_norm",
            "resnet_time_scale_shift": "scale_shift",
            "encoder_hid_dim": 32,
            "encoder_hid_dim_type": "text_proj",
            "act_fn": "gelu",
        }
    )
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, prediction_type="epsilon"
    )
    return diffusers.IFPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def dit(n_classes: int = 10) -> Any:
    import diffusers

    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=n_classes,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return diffusers.DiTPipeline(transformer, vae(), diffusers.DDIMScheduler(clip_sample=False))


PIPELINES: dict[str, Callable[[], Any]] = {
    "sd-epsilon": stable_diffusion,
    "sd-v": stable_diffusion_v,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "pixart": pixart,
    "pixart-sizes": pixart_sizes,
    "pixart-sigma": pixart_sigma,
    "if": deepfloyd_if,
    "dit": dit,
}


def save(build: Callable[[], Any], folder: Path, seed: int = 0) -> Path:
    """Build a pipeline with random weights and write it as anyone would."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = build()
    for part in pipe.components.values():  # what is zero at the start of training would hide what it multiplies
        if isinstance(part, torch.nn.Module):
            for name, parameter in part.named_parameters():
                if not parameter.any():
                    generator = torch.Generator().manual_seed(len(name))
                    parameter.data.normal_(std=0.1, generator=generator)
    pipe.save_pretrained(folder)
    if type(pipe).__name__ == "DiTPipeline":  # as in facebook/DiT-XL-2-256; `save_pretrained` leaves it out
        index = json.loads((folder / "model_index.json").read_text())
        index["id2label"] = {str(i): name for i, name in enumerate(CLASSES)}
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
