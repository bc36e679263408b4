"""LoRAs of diffusers pipelines: read from safetensors, checked, and fused into the weights."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf.utils.installing import require

from ._diffusers_logging import quiet

__all__ = ["LORA_FILE", "check_base", "describe_base", "fuse_lora"]

LORA_FILE = "pytorch_lora_weights.safetensors"
"""File name of a LoRA that diffusers or peft's training scripts have saved."""

PEFT_CONFIG, PEFT_FILE, PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
"""File names of a LoRA in peft's own form, and the prefix of its weights' names."""

BASE = "hybridclf_base"
"""Key in the metadata of files that `hybridclf tune` writes."""

_FIRST_MATRIX = re.compile(r"lora_A\.|lora_down\.|lora\.down\.")
"""Pattern in the names of a LoRA's first matrices, of which every layer has one."""


def fuse_lora(pipe: Any, lora: str | Path, scale: float) -> None:
    """Fuse a LoRA into the weights of a pipeline.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Loaded pipeline.
    lora : path
        File in safetensors, in a form that diffusers reads; folder of one, or of one in peft's own form; or name of a
        repository on the hub.
    scale : float
        Factor on the LoRA; 1 is as it was trained.

    Raises
    ------
    UnknownSpecError
        If there is no such file or repository.
    SavedModelError
        If it cannot be read, or does not fit the pipeline.
    InvalidInputError
        For a family whose pipeline takes no LoRA.
    MissingDependencyError
        If peft is not installed.
    """
    require("peft", "a LoRA needs", "tune")
    if not hasattr(pipe, "load_lora_weights"):
        raise InvalidInputError(f"a {type(pipe).__name__} takes no LoRA in diffusers; leave the option lora out")
    file = _file_of(lora)
    try:
        check_base(pipe, file)
        n_expected = sum(bool(_FIRST_MATRIX.search(name)) for name in safetensors.torch.load_file(file))
        with quiet():
            if file.name == PEFT_FILE:
                pipe.load_lora_weights(_from_peft(pipe, file))
                scale *= _peft_scale(file)
            else:
                pipe.load_lora_weights(file.parent, weight_name=file.name, use_safetensors=True)
        parts = _adapted_parts(pipe)
        # diffusers warns at most of layers for which there is no place
        if sum(parts.values()) < max(1, n_expected):
            raise ValueError(f"{sum(parts.values())} of its {n_expected} layers have a place there")
        pipe.fuse_lora(components=list(parts), lora_scale=scale)
        pipe.unload_lora_weights()
    except (KeyError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise SavedModelError(
            f"the LoRA {str(lora)!r} cannot be used with this pipeline: {error}; give the one that it was trained on"
        ) from error


def describe_base(pipe: Any) -> dict[str, str]:
    """Metadata of a file of new parameters: a hash of the configurations that they were trained with."""
    parts = (pipe.unet if hasattr(pipe, "unet") else pipe.transformer, pipe.scheduler)
    configs = [{k: v for k, v in part.config.items() if not k.startswith("_")} for part in parts]
    text = json.dumps(configs, sort_keys=True, default=str)
    return {"format": "pt", BASE: hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def check_base(pipe: Any, file: Path) -> None:
    """Check that new parameters were trained with this pipeline, if their file says with which.

    Raises
    ------
    SavedModelError
        If they were not.
    """
    with safetensors.safe_open(file, framework="pt") as opened:
        base = (opened.metadata() or {}).get(BASE)
    if base not in (None, describe_base(pipe)[BASE]):
        raise SavedModelError(
            f"{file} was tuned with a pipeline of another configuration; give the one that it belongs to"
        )


def _file_of(lora: str | Path) -> Path:
    """Find the file of a LoRA."""
    path = Path(lora).expanduser()
    if not path.exists():
        return _downloaded(str(lora))
    known = [path / name for name in (LORA_FILE, PEFT_FILE) if (path / name).exists()]
    files = [path] if path.is_file() else known[:1] or sorted(path.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        raise SavedModelError(
            f"{str(lora)!r} is no LoRA in safetensors; give a file in that format, or the folder of a single one (a "
            "pickled one can run any code when read)"
        )
    return files[0]


def _downloaded(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, LORA_FILE))
    except (OSError, ValueError) as error:
        raise UnknownSpecError(
            f"{name!r} is neither the file or folder of a LoRA nor a repository on the hub with a {LORA_FILE}: {error}"
        ) from error


def _from_peft(pipe: Any, file: Path) -> dict[str, Tensor]:
    """Read a LoRA in peft's form under diffusers' names."""
    network, tensors = "unet" if hasattr(pipe, "unet") else "transformer", safetensors.torch.load_file(file)
    if not all(name.startswith(PEFT_PREFIX) for name in tensors):
        raise ValueError(f"its weights' names do not start with {PEFT_PREFIX!r}")
    return {f"{network}.{name.removeprefix(PEFT_PREFIX)}": value for name, value in tensors.items()}


def _peft_scale(file: Path) -> float:
    """Read the factor alpha / rank on a LoRA in peft's form, which its file of weights leaves out."""
    config = json.loads((file.parent / PEFT_CONFIG).read_text("utf-8"))
    rank = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    return float(config["lora_alpha"] / rank)


def _adapted_parts(pipe: Any) -> dict[str, int]:
    """Parts of a pipeline that have a LoRA, with the number of its layers."""
    from peft.tuners.lora import LoraLayer

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    counts = {name: sum(isinstance(layer, LoraLayer) for layer in part.modules()) for name, part in parts.items()}
    return {name: count for name, count in counts.items() if count}
