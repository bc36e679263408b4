"""Stable Diffusion as a checkpoint in a single file, under the names of the code that it was first trained with."""

import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

LAYERS = 1
"""Residual blocks per level of the tiny U-Net and VAE, which have two levels."""

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(key: str) -> str:
    for new, old in ENDS.items():
        if key.startswith(f"{new}."):
            return f"{old}.{key.removeprefix(f'{new}.')}"
    if ".resnets." in key:
        for new, old in RESNET.items():
            key = key.replace(f".{new}.", f".{old}.")
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key)
    if match:
        return f"middle_block.{2 * int(match[2]) if match[1] == 'resnets' else 1}.{match[3]}"
    match = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key)
    assert match, key
    side, level, part, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if part == "downsamplers":
        return f"input_blocks.{(level + 1) * (LAYERS + 1)}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":  # the upper blocks of the tiny U-Net have no attention
        return f"output_blocks.{level * (LAYERS + 1) + LAYERS}.1.{rest}"
    position = level * (LAYERS + 1) + number + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{position}.{int(part == 'attentions')}.{rest}"


def vae_name(key: str) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0" in key:
        for new, old in ATTENTION.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        key = key.replace("mid_block.attentions.0", "mid.attn_1")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{1 - int(m[1])}.block.", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", key)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    [weights] = folder.glob("*.safetensors")
    return load_file(weights)


def checkpoint(folder: Path, file: Path) -> Path:
    """Write the weights of a saved Stable Diffusion of one's own into a single file."""
    tensors = {f"model.diffusion_model.{unet_name(k)}": v for k, v in tensors_of(folder / "unet").items()}
    for key, value in tensors_of(folder / "vae").items():
        name = vae_name(key)
        attends = ".mid.attn_1." in name and value.ndim == 2
        tensors[f"first_stage_model.{name}"] = value[..., None, None] if attends else value
    for key, value in tensors_of(folder / "text_encoder").items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    return file
