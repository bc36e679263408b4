"""A CLIP and a Stable Diffusion with random weights, side by side in one folder, as a model of text has its tiers."""

import json
from pathlib import Path

import torch

from tests.adapters.tiny_diffusers import save, stable_diffusion

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def save_pair(folder: Path) -> Path:
    """Write clip/ (open_clip's "local-dir:") and sd/ (a diffusers pipeline) into a folder."""
    import open_clip
    from safetensors.torch import save_file

    clip = folder / "clip"
    clip.mkdir()
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = open_clip.create_model(f"local-dir:{clip}", load_weights=False).state_dict()
    save_file(state, clip / "open_clip_model.safetensors")
    save(stable_diffusion, folder / "sd")
    return folder


def specs_of(folder: Path) -> tuple[str, str]:
    """Spec strings of both tiers."""
    return f"open_clip:local-dir:{folder}/clip", f"diffusers:{folder}/sd"
