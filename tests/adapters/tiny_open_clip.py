"""A tiny open_clip model with random weights."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def save_open_clip(folder: Path, name: str) -> str:
    """Write the model into a folder and register it under a name; its spec string."""
    (folder / f"{name}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model(name).state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:{name}/{folder}/open_clip_model.safetensors"
