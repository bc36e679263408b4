"""LoRAs of diffusers pipelines: read from safetensors, checked, and fused into the weights."""

import hashlib
import inspect
import json
import re
import warnings
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf.utils.installing import require

from ._diffusers_files import denoising_network
from ._diffusers_logging import quiet

__all__ = ["LORA_FILE", "check_base", "describe_base", "fuse_lora", "lora_layers", "remove_lora"]

LORA_FILE = "pytorch_lora_weights.safetensors"
"""File name of a LoRA that diffusers or peft's training scripts have saved."""

PEFT_FILE, PEFT_PREFIX = "adapter_model.safetensors", "base_model.model."
"""File name of a LoRA in peft's own form, and the prefix of its weights' names."""

BASE = "hybridclf_base"
"""Key in the metadata of files that `hybridclf tune` writes."""

LEVELS = ("beta", "prediction_type", "shift", "sigma", "snr", "train_timesteps")
"""Parts of the names of a scheduler's settings that decide its noise levels, and what the network predicts."""

_FIRST_MATRIX = re.compile(r"lora_A\.|lora_down\.|lora\.down\.")
"""Pattern in the names of a LoRA's first matrices, of which every layer has one."""


def fuse_lora(pipe: Any, lora: str | Path, scale: float, cache_dir: str | Path | None) -> None:
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
    cache_dir : path or None
        Folder of downloads; None for the hub's own.

    Raises
    ------
    UnknownSpecError
        If there is no such file or repository.
    SavedModelError
        If it cannot be read, or does not fit the pipeline.
    InvalidInputError
        For a scale that is no finite number.
    MissingDependencyError
        If peft is not installed.
    """
    require("peft", "a LoRA needs", "tune")
    if not isfinite(scale):
        raise InvalidInputError(f"lora_scale must be a finite number, got {scale}")
    file = _file_of(lora, cache_dir)
    try:
        check_base(pipe, file)
        tensors = safetensors.torch.load_file(file)
        if any("dora_scale" in name for name in tensors):
            raise ValueError("it is a DoRA in a form of which diffusers leaves the magnitudes out")
        n_expected = sum(bool(_FIRST_MATRIX.search(name)) for name in tensors)
        with quiet():
            if file.name == PEFT_FILE or not hasattr(pipe, "load_lora_weights"):
                name, network = denoising_network(pipe)
                _add(network, *_read(name, file, tensors))
            else:
                pipe.load_lora_weights(file.parent, weight_name=file.name, use_safetensors=True)
        n_layers = {name: len(lora_layers(part)) for name, part in _modules(pipe).items()}
        # diffusers warns at most of layers for which there is no place
        if sum(n_layers.values()) < max(1, n_expected):
            raise ValueError(f"{sum(n_layers.values())} of its {n_expected} layers have a place there")
        for part in (part for name, part in _modules(pipe).items() if n_layers[name]):
            _fuse(part, scale)
    except (KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise SavedModelError(
            f"the LoRA {str(lora)!r} cannot be used with this pipeline: {error}; give the one that it was trained on"
        ) from error


def describe_base(pipe: Any) -> dict[str, str]:
    """Metadata of a file of new parameters: a hash of the configurations that they were trained with.

    Of the scheduler its noise levels count and what is predicted, not how it samples. What is the class's default is
    left out, as other versions of diffusers may have more of that.
    """
    _, network = denoising_network(pipe)
    levels = {k: v for k, v in _not_default(pipe.scheduler).items() if any(word in k for word in LEVELS)}
    text = json.dumps([_not_default(network), levels], sort_keys=True, default=str)
    return {BASE: hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def _not_default(part: Any) -> dict[str, Any]:
    """Entries of a part's configuration that are not the defaults of its class."""
    defaults = {name: one.default for name, one in inspect.signature(type(part).__init__).parameters.items()}
    said = partial(json.dumps, default=str)  # a list in a file is a tuple in the code
    own = {k: v for k, v in part.config.items() if not k.startswith("_")}
    return {k: v for k, v in own.items() if k not in defaults or said(v) != said(defaults[k])}


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


def _file_of(lora: str | Path, cache_dir: str | Path | None) -> Path:
    """Find the file of a LoRA."""
    path = Path(lora).expanduser()
    if not path.exists():
        return _downloaded(str(lora), cache_dir)
    known = [path / name for name in (LORA_FILE, PEFT_FILE) if (path / name).exists()]
    files = [path] if path.is_file() else known[:1] or sorted(path.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        raise SavedModelError(
            f"{str(lora)!r} is no LoRA in safetensors; give a file in that format, or the folder of a single one (a "
            "pickled one can run any code when read)"
        )
    return files[0]


def _downloaded(name: str, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, LORA_FILE, cache_dir=cache_dir))
    except (OSError, ValueError) as error:
        raise UnknownSpecError(
            f"{name!r} is neither the file or folder of a LoRA nor a repository on the hub with a {LORA_FILE}: {error}"
        ) from error


def _modules(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def _read(name: str, file: Path, tensors: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Read the configuration of a LoRA of the network `name`, and its weights by the network's own names."""
    import peft

    prefix = PEFT_PREFIX if file.name == PEFT_FILE else f"{name}."
    if not all(key.startswith(prefix) for key in tensors):
        raise ValueError(f"its weights' names do not start with {prefix!r}")
    tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    if file.name == PEFT_FILE:
        return peft.LoraConfig.from_pretrained(str(file.parent)), tensors
    ranks = {key.removesuffix(".lora_A.weight"): len(value) for key, value in tensors.items() if ".lora_A." in key}
    if not ranks:
        raise ValueError("it has no weights of the name lora_A")
    # alpha = rank, so that the LoRA counts as it is, which is what diffusers assumes of a file that does not say
    pattern = {f"^{re.escape(key)}$": rank for key, rank in ranks.items()}
    most = max(ranks.values())
    config = peft.LoraConfig(
        r=most, lora_alpha=most, rank_pattern=pattern, alpha_pattern=pattern, target_modules=[*ranks]
    )
    return config, tensors


def _add(network: torch.nn.Module, config: Any, tensors: dict[str, Tensor]) -> None:
    """Add a LoRA to a network by peft alone, which knows more networks than diffusers' own loader."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of other layers in the configuration than in the file
        peft.inject_adapter_in_model(config, network, state_dict=tensors)
    report: Any = peft.set_peft_model_state_dict(network, tensors)
    unexpected = report.unexpected_keys
    if unexpected:
        raise ValueError(f"there is no place for {len(unexpected)} of its weights, such as {unexpected[0]!r}")


def _fuse(network: Any, scale: float) -> None:
    """Fuse the LoRA of a network, and put its own layers back."""
    for layer in lora_layers(network).values():
        layer.scale_layer(scale)
        layer.merge()
    remove_lora(network)


def remove_lora(network: Any) -> None:
    """Put the layers back that a LoRA has replaced, with what was merged into them."""
    for name, layer in lora_layers(network).items():
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.get_base_layer())
    for flag in ("peft_config", "_hf_peft_config_loaded"):
        if flag in vars(network):
            delattr(network, flag)


def lora_layers(network: torch.nn.Module) -> dict[str, Any]:
    """Layers of a network with a LoRA, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}
