"""Small pipelines of the newer text-to-image families, with real configs and random weights."""

import io
import json
import string
import tempfile
from collections.abc import Callable
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from tests.adapters.tiny_diffusers import LETTERS, UNET, clip_text, clip_tokenizer, t5_text, t5_tokenizer, vae

SHIFTED_VAE = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
"""Scale and shift of FLUX.1's VAE."""

DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0}

JOINT: dict[str, Any] = {
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}
"""Sizes of the transformers with joint attention to text and image."""


def flux(guidance: bool = True) -> Any:
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_single_layers=1,
        pooled_projection_dim=32,
        guidance_embeds=guidance,
        **JOINT,
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


@cache
def pieces(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Vocabulary and merges of byte pairs that are frequent in a text, which they make short to read."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    alphabet = [*string.ascii_letters, *string.digits, *"▁ .,'-:;<>()|_\n"]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, max_token_length=12, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return list(model["vocab"]), [tuple(pair) for pair in model["merges"]]


def gemma_tokenizer() -> Any:
    from diffusers import SanaPipeline
    from transformers import GemmaTokenizer

    instruction = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    vocabulary, merges = pieces("\n".join(instruction).replace(" ", "▁"))
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *vocabulary]
    return GemmaTokenizer({token: i for i, token in enumerate(tokens)}, merges)


def gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    sizes = {
        "vocab_size": 448,
        "hidden_size": 32,
        "intermediate_size": 37,
        "head_dim": 8,
        "max_position_embeddings": 2048,
    }
    return Gemma2Model(Gemma2Config(num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, **sizes))


def sana(sprint: bool = False) -> Any:
    import diffusers

    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        sample_size=16,
        guidance_embeds=sprint,
        qk_norm="rms_norm_across_heads" if sprint else None,
    )
    own_vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    kind = diffusers.SanaSprintPipeline if sprint else diffusers.SanaPipeline
    return kind(
        transformer=transformer,
        scheduler=diffusers.SCMScheduler() if sprint else diffusers.DPMSolverMultistepScheduler(**flow),
        vae=own_vae,
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


def sana_sprint() -> Any:
    return sana(sprint=True)


def auraflow() -> Any:
    import diffusers
    from transformers import UMT5Config, UMT5EncoderModel

    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    # of 256 tokens only the prompt's few are not 0
    transformer.joint_transformer_blocks[0].attn.add_v_proj.weight.data *= 100
    sizes = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 1, "num_heads": 4}
    return diffusers.AuraFlowPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=vae(scaling_factor=0.13025),
        text_encoder=UMT5EncoderModel(UMT5Config(**sizes)),
        tokenizer=t5_tokenizer(),
    )


def lumina2() -> Any:
    import diffusers

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 8, 8),
        cap_feat_dim=32,
    )
    return diffusers.Lumina2Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(4, blocks=4, **SHIFTED_VAE),
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Chat template as of Qwen, in short."""


MESSAGES = (
    "{% for message in messages %}[{{ message['role'] }}]{% for part in message['content'] %}{{ part['text'] }}"
    "{% endfor %}{% endfor %}"
)
"""Chat template as of Mistral, in short."""


def qwen_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocabulary = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocabulary, [], chat_template=CHAT, model_max_length=2048)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


QWEN = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def z_image() -> Any:
    import diffusers
    from transformers import Qwen3Config, Qwen3Model

    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 4, 8],
        axes_lens=[1024, 32, 32],
    )
    return diffusers.ZImagePipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(4, **SHIFTED_VAE),
        text_encoder=Qwen3Model(Qwen3Config(num_hidden_layers=2, **QWEN)),
        tokenizer=qwen_tokenizer(),
    )


def cogview4() -> Any:
    import diffusers
    from tokenizers.processors import TemplateProcessing
    from transformers import GlmConfig, GlmModel

    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=32,
        time_embed_dim=16,
        condition_dim=4,
        pos_embed_max_size=8,
        sample_size=8,
        rope_axes_dim=(8, 8),
    )
    own = {"pad_token_id": 0, "eos_token_id": [0], "max_position_embeddings": 256}
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side = "left"
    mark = "<|im_start|>"  # GLM begins with marks, too
    processor = TemplateProcessing(single=f"{mark} $A", special_tokens=[(mark, tokenizer.convert_tokens_to_ids(mark))])
    tokenizer.backend_tokenizer.post_processor = processor
    shift = {"base_shift": 0.25, "max_shift": 0.75, "time_shift_type": "linear", "base_image_seq_len": 256}
    return diffusers.CogView4Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift),
        vae=vae(),
        text_encoder=GlmModel(GlmConfig(num_hidden_layers=2, **QWEN, **own)),
        tokenizer=tokenizer,
    )


def chroma() -> Any:
    import diffusers

    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_single_layers=1,
        **JOINT,
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return diffusers.ChromaPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, **SHIFTED_VAE),
        text_encoder=t5_text(),
        tokenizer=t5_tokenizer(),
    )


def qwen_image() -> Any:
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        **JOINT,
    )
    own_vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.7, 0.1, 0.9, -0.2],
        latents_std=[2.8, 1.4, 0.7, 1.1],
    )
    text = {name: value for name, value in QWEN.items() if name != "head_dim"} | {"num_hidden_layers": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision)
    shift = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    return diffusers.QwenImagePipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0, **shift),
        vae=own_vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=qwen_tokenizer(),
    )


def flux2_parts(guidance: bool) -> dict[str, Any]:
    import diffusers

    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_single_layers=1,
        timestep_guidance_channels=16,
        guidance_embeds=guidance,
        **JOINT | {"joint_attention_dim": 3 * 16, "axes_dims_rope": (4, 4, 4, 4)},
    )
    own_vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        sample_size=16,
    )
    own_vae.bn.running_mean.uniform_(-1, 1)
    own_vae.bn.running_var.uniform_(0.5, 2)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**DYNAMIC)
    return {"transformer": transformer, "vae": own_vae, "scheduler": scheduler}


def flux2_klein() -> Any:
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    text = Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=28, **QWEN | small))
    return diffusers.Flux2KleinPipeline(**flux2_parts(guidance=False), text_encoder=text, tokenizer=qwen_tokenizer())


def flux2() -> Any:
    import diffusers
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralImageProcessor, PixtralProcessor

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1, "num_hidden_layers": 31}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1}
    config = Mistral3Config(
        text_config={"model_type": "mistral", "sliding_window": None} | QWEN | small,
        vision_config={"model_type": "pixtral", "head_dim": 16, "patch_size": 4, "image_size": 16} | vision,
        image_token_index=258,
    )
    tokenizer = qwen_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]})
    processor = PixtralProcessor(PixtralImageProcessor(), tokenizer, patch_size=4, chat_template=MESSAGES)
    text = Mistral3ForConditionalGeneration(config)
    return diffusers.Flux2Pipeline(**flux2_parts(guidance=True), text_encoder=text, tokenizer=processor)


def hunyuan_dit() -> Any:
    import diffusers
    from transformers import BertConfig, BertModel, BertTokenizer

    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=4,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
    )
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    sizes = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1}
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.02, beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1
    )
    return diffusers.HunyuanDiTPipeline(
        transformer=transformer,
        scheduler=scheduler,
        vae=vae(4, blocks=4),
        text_encoder=BertModel(BertConfig(num_attention_heads=2, **sizes)),
        tokenizer=BertTokenizer({token: i for i, token in enumerate(tokens)}, model_max_length=77),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def kolors() -> Any:
    import diffusers
    import sentencepiece
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=96,
        hidden_size=32,
        ffn_hidden_size=37,
        kv_channels=8,
        num_attention_heads=4,
        seq_length=256,
        multi_query_attention=True,
        multi_query_group_num=2,
        add_qkv_bias=True,
        original_rope=True,
    )
    unet = diffusers.UNet2DConditionModel(
        **UNET
        | {
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
            "encoder_hid_dim": 32,
            "encoder_hid_dim_type": "text_proj",
        }
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=1100,
        beta_start=0.00085,
        beta_end=0.014,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    letters, model = iter([" ".join(LETTERS + string.ascii_uppercase)]), io.BytesIO()
    options = {"vocab_size": 100, "hard_vocab_limit": False, "model_type": "char", "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=letters, model_writer=model, **options)
    file = Path(tempfile.mkdtemp()) / "tokenizer.model"  # it is read again when the tokenizer is saved
    file.write_bytes(model.getvalue())
    text = ChatGLMModel(config).float()
    for parameter in text.parameters():  # which it leaves as the memory was
        torch.nn.init.normal_(parameter, std=0.3)
    return diffusers.KolorsPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=text,
        tokenizer=ChatGLMTokenizer(str(file)),
        unet=unet,
        scheduler=scheduler,
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux-dev": flux,
    "flux-schnell": flux_schnell,
    "sana": sana,
    "sana-sprint": sana_sprint,
    "auraflow": auraflow,
    "lumina2": lumina2,
    "z-image": z_image,
    "cogview4": cogview4,
    "chroma": chroma,
    "qwen-image": qwen_image,
    "flux2-dev": flux2,
    "flux2-klein": flux2_klein,
    "hunyuan-dit": hunyuan_dit,
    "kolors": kolors,
}
