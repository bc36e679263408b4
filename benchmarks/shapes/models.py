"""The networks of the shapes pair, small ones of the kinds that people run: open_clip and Stable Diffusion."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

N_TOKENS = 32
TEXT = {"width": 128, "heads": 4, "layers": 3}
ENDS = ("<|startoftext|>", "<|endoftext|>")


# --- words ------------------------------------------------------------------------------------------------------------


def tokenizer(sentences: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose words are those of the sentences; other words are spelt."""
    bpe = Tokenizer(models.BPE(unk_token=ENDS[1], end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,'-"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator([*sentences, *(f"{c} {c}{c}" for c in letters)], trainer)
    learned = json.loads(bpe.to_str())["model"]
    words = sorted(w for w in learned["vocab"] if w not in ENDS)  # numbers of single letters differ from run to run
    vocabulary = {w: i for i, w in enumerate([*words, *ENDS])}  # the end is the last: CLIP looks for the highest
    return CLIPTokenizer(vocabulary, [tuple(m) for m in learned["merges"]], model_max_length=N_TOKENS)


def tokens(words: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Tokens `[n, N_TOKENS]`."""
    return words(list(texts), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


# --- tier 1 -----------------------------------------------------------------------------------------------------------


def clip_config(n_words: int) -> dict[str, Any]:
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": N_TOKENS, "vocab_size": n_words, "hf_tokenizer_name": "./", **TEXT},
    }


def clip(n_words: int) -> nn.Module:
    import open_clip

    config = clip_config(n_words)
    config["text_cfg"].pop("hf_tokenizer_name")
    return open_clip.CLIP(**config)


CLIP_MEAN, CLIP_STD = (0.2, 0.2, 0.2), (0.25, 0.25, 0.25)


def clip_pixels(pictures: Any) -> Tensor:
    """Normalised pixels `[n, 3, 64, 64]` of uint8 pictures."""
    pixels = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 255
    return (pixels - CLIP_MEAN[0]) / CLIP_STD[0]


def save_clip(model: nn.Module, words: CLIPTokenizer, folder: Path) -> None:
    """An ordinary folder of open_clip, in half precision."""
    words.save_pretrained(folder)
    preprocess = {"mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": clip_config(len(words)), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


# --- tier 2 -----------------------------------------------------------------------------------------------------------


def text_encoder(model: nn.Module, n_words: int) -> CLIPTextModel:
    """The text tower of a CLIP model, as transformers writes it."""
    ends = {"bos_token_id": n_words - 2, "eos_token_id": n_words - 1, "pad_token_id": n_words - 1}
    config = CLIPTextConfig(
        vocab_size=n_words,
        hidden_size=TEXT["width"],
        intermediate_size=4 * TEXT["width"],
        num_hidden_layers=TEXT["layers"],
        num_attention_heads=TEXT["heads"],
        max_position_embeddings=N_TOKENS,
        projection_dim=128,
        hidden_act="gelu",
        **ends,
    )
    encoder, ours = CLIPTextModel(config), model.state_dict()
    names = dict(encoder.named_parameters())
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(_tower_weight(ours, name))
    return encoder


_RENAMED = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "encoder.layers": "transformer.resblocks",
    "final_layer_norm": "ln_final",
}


def _tower_weight(ours: dict[str, Tensor], name: str) -> Tensor:
    """The weight of open_clip's text tower that transformers calls `name`."""
    name = name.removeprefix("text_model.")
    if name.startswith("embeddings."):
        return ours["positional_embedding" if "position" in name else "token_embedding.weight"]
    for theirs, our in _RENAMED.items():
        name = name.replace(theirs, our)
    for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
        if f"self_attn.{part}." in name:
            joint = name.replace(f"self_attn.{part}.", "attn.in_proj_")
            return ours[joint].chunk(3)[i]
    return ours[name]


LATENT = 16
"""Channels of the latents: 96 % of the variance of 4x4 patches."""

LARGE, SHIFT = 40.0, 8.0
"""A constant that outweighs pixels in a normalisation, and an argument from which SiLU is the identity."""


def autoencoder() -> AutoencoderKL:
    """32x32 pixels to 8x8 latents; weights still to be set."""
    return AutoencoderKL(
        block_out_channels=(16, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=1,
        latent_channels=LATENT,
        sample_size=32,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


@torch.no_grad()
def write_encoder(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Make the encoder the principal components of 4x4 patches of pictures `[n, 3, 32, 32]`, of about equal weight.

    Nothing to train, and no colour lost. Residual branches are zero, and each strided convolution stacks the four
    pixels of a 2x2 patch, so all is linear up to the last normalisation and activation. Spare channels of a large
    constant make that normalisation a constant factor, and a shift puts the activation where it is the identity.
    """
    encoder = vae.encoder
    for block in (*encoder.down_blocks, encoder.mid_block):
        for residual in block.resnets:
            _fill(residual.conv2)
    _fill(encoder.conv_in, [(i, i, 1, 1) for i in range(3)])
    encoder.conv_in.bias[12:] = LARGE
    first, second = (encoder.down_blocks[i].downsamplers[0].conv for i in (0, 1))
    keep = [(i, i, 0, 0) for i in range(12, 16)]
    _fill(first, [(4 * c + 2 * y + x, c, y, x) for c in range(3) for y in (0, 1) for x in (0, 1)] + keep)
    widen = encoder.down_blocks[1].resnets[0].conv_shortcut
    _fill(widen, [(i, i, 0, 0) for i in range(12)] + [(i, 12, 0, 0) for i in range(48, 64)])
    widen.weight[56:] *= -1  # half of the constants negative: the mean of all channels is near zero
    keep = [(i, i, 0, 0) for i in range(48, 64)]
    _fill(second, [(4 * c + 2 * y + x, c, y, x) for c in range(12) for y in (0, 1) for x in (0, 1)] + keep)
    second.weight[48:, :12, :2, :2] = -1 / 16  # and zero, whatever the picture
    encoder.conv_norm_out.weight.fill_(LARGE / 2)
    encoder.conv_norm_out.bias.fill_(SHIFT)
    _write_components(vae, pictures)


def _write_components(vae: AutoencoderKL, pictures: Tensor) -> None:
    """The last convolution: from 48 shifted pixels to latents, with next to no variance."""
    _fill(vae.encoder.conv_out)
    _fill(vae.quant_conv, [(i, i, 0, 0) for i in range(2 * LATENT)])
    patches = _patches(pictures)  # [m, 48]
    values, vectors = torch.linalg.eigh(patches.T.cov().double())
    components = (vectors / values.clamp(min=1e-6) ** 0.25).T.flip(0)[:LATENT].float()  # [LATENT, 48]
    vae.encoder.conv_out.weight[:LATENT, :48, 1, 1] = components
    vae.encoder.conv_out.bias[:LATENT] = -components @ (patches.mean(0) + SHIFT)
    vae.encoder.conv_out.bias[LATENT:] = -30.0
    spread = vae.encode(pictures[:2000]).latent_dist.mean.std()
    vae.register_to_config(scaling_factor=float(1 / spread))


def _patches(pictures: Tensor) -> Tensor:
    """4x4 patches `[m, 48]`, in the order in which the strided convolutions stack them."""
    stacked = pixel_unshuffle(pixel_unshuffle(pictures, 2), 2)
    return stacked.permute(0, 2, 3, 1).flatten(0, 2)


def _fill(layer: nn.Conv2d, ones: Sequence[tuple[int, int, int, int]] = ()) -> None:
    """Zero everywhere but for ones at (output channel, input channel, y, x)."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    for place in ones:
        layer.weight[place] = 1.0


def unet(attends: tuple[bool, bool] = (True, True)) -> UNet2DConditionModel:
    """Cross-attention where it is wanted, of the higher and the lower resolution; untrained, captions say nothing."""
    down = ["CrossAttnDownBlock2D" if wanted else "DownBlock2D" for wanted in attends]
    up = ["CrossAttnUpBlock2D" if wanted else "UpBlock2D" for wanted in reversed(attends)]
    network = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT,
        out_channels=LATENT,
        block_out_channels=(64, 96),
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=TEXT["width"],
    )
    for name, layer in network.named_modules():
        if name.endswith("attn2.to_out.0"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


class TextToImage(nn.Module):
    """A U-Net behind its text encoder.

    Parameters
    ----------
    network : UNet2DConditionModel
        What predicts the noise.
    encoder : CLIPTextModel
        What the words go through; it is trained if its parameters require gradients.
    """

    def __init__(self, network: UNet2DConditionModel, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.network, self.encoder = network, encoder.eval()

    def forward(self, noised: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """Noise `[n, LATENT, 8, 8]` in latents of that shape at times `[n]`, under words `[n, N_TOKENS]`."""
        return self.network(noised, t, self.encoder(words).last_hidden_state).sample


def scheduler() -> PNDMScheduler:
    """Stable Diffusion's noise levels."""
    return PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save_pipeline(vae: nn.Module, encoder: nn.Module, words: CLIPTokenizer, network: nn.Module, folder: Path) -> None:
    """An ordinary folder of diffusers, in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=encoder.half(),
        tokenizer=words,
        unet=network.half(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


# --- an earlier pair's ------------------------------------------------------------------------------------------------


def saved_words(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a pair."""
    return CLIPTokenizer.from_pretrained(folder / "clip")


def saved_clip(folder: Path) -> nn.Module:
    """Tier 1 of a pair, in single precision like the others."""
    import open_clip

    return open_clip.create_model_from_pretrained(f"local-dir:{folder / 'clip'}", return_transform=False)


def saved_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder of a pair: latents are its own, down to their signs."""
    return AutoencoderKL.from_pretrained(folder / "sd" / "vae", dtype=torch.float32).requires_grad_(False)


def saved_unet(folder: Path) -> UNet2DConditionModel:
    """The U-Net of a pair."""
    return UNet2DConditionModel.from_pretrained(folder / "sd" / "unet", dtype=torch.float32)
