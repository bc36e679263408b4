"""Files of saved pipelines: checks that they exist, are safe and complete, and the loading of their networks."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from hybridclf.errors import SavedModelError, UnknownSpecError, choices

from ._diffusers_logging import quiet

__all__ = ["INDEX", "check_files", "check_kind", "lacking", "load_networks", "networks_of", "unreadable"]

INDEX = "model_index.json"
"""File name of a saved pipeline's list of parts."""

PICKLED = (".bin", ".ckpt", ".pkl", ".pt", ".pth")

_ADAPTED = re.compile("lora|base_layer", re.IGNORECASE)
"""Pattern of the weights' names that a LoRA or another of peft's adapters has added or renamed."""

_WEIGHTS = re.compile(
    r"(.*/)?(diffusion_pytorch_)?model(-\d+-of-\d+)?(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?\.safetensors"
)
"""Pattern of weight files' names; in old ones the number of a shard comes before the variant."""

_FUSE = "pipe.fuse_lora(); pipe.unload_lora_weights(); pipe.save_pretrained('FOLDER')"


# --- not a pipeline ---------------------------------------------------------------------------------------------------


def check_kind(spec: str) -> None:
    """Check that a path does not name a part of a pipeline, a LoRA, or a checkpoint in a single file.

    Raises
    ------
    UnknownSpecError
        If it does; the message says how to make a pipeline of it.
    """
    path = Path(spec).expanduser()
    if not path.exists() or (path / INDEX).exists():
        return
    # a part is a folder in the pipeline's, its weights a file in that
    for parent in path.absolute().parents[:2]:
        if (parent / INDEX).exists():
            raise UnknownSpecError(f"{spec!r} is a part of a pipeline; name the whole: {str(parent)!r}")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if any(file.name == "adapter_config.json" or _is_lora(file) for file in files):
        raise _lora(spec, path)
    for file in files:
        if file.suffix in (".safetensors", *PICKLED):
            raise _single_file(spec, file)


def _is_lora(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return file.stem == "pytorch_lora_weights"
    try:
        return any(map(_ADAPTED.search, _keys(file)))
    except (OSError, SafetensorError):  # a damaged file gets its own error later
        return False


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def _lora(spec: str, path: Path) -> UnknownSpecError:
    config, base = path / "adapter_config.json", None
    if config.exists():  # peft's own form has the name of the base model
        base = json.loads(config.read_text("utf-8")).get("base_model_name_or_path")
    return UnknownSpecError(
        f"{spec!r} is a LoRA, which is nothing without the pipeline that it was trained on; name that one, and give "
        f'the LoRA as an option: "diffusers:{base or "BASE"}?lora={spec}"'
    )


def _single_file(spec: str, file: Path) -> UnknownSpecError:
    if file.suffix == ".safetensors":
        return UnknownSpecError(
            f"{spec!r} is a checkpoint in a single file, which says nothing of its family; give with it the folder of "
            "a saved pipeline of that family, whose configurations and tokenizers are read and whose weights may be "
            f'absent: "diffusers:{file}?config=FOLDER"'
        )
    return UnknownSpecError(
        f"{spec!r} is a pickled checkpoint in a single file, which can run any code when read. Only if you trust it, "
        "convert it once with the class of its family, such as StableDiffusionXLPipeline, and name the new folder:\n"
        'python -c "from diffusers import StableDiffusionPipeline; '
        f"StableDiffusionPipeline.from_single_file({str(file)!r}).save_pretrained('FOLDER')\""
    )


def _pickled(spec: str) -> SavedModelError:
    """Error of weights that exist in pickled form only."""
    return SavedModelError(
        f"{spec!r} has weights that are not in safetensors but pickled, which can run any code when read. If you trust "
        "them, convert them once, and load the new folder:\n"
        'python -c "from diffusers import DiffusionPipeline as P; '
        f"P.from_pretrained('{spec}').save_pretrained('converted')\""
    )


# --- incomplete pipelines ---------------------------------------------------------------------------------------------


def lacking(spec: str, problem: str, advice: str = "copy or download all of it") -> SavedModelError:
    """Error of an incomplete pipeline."""
    return SavedModelError(f"{spec!r} cannot be loaded: {problem}; {advice}")


def unreadable(spec: str, names: Iterable[str]) -> SavedModelError:
    """Error of a repository with these files, in which some network has no safetensors."""
    variants = _variants_of(names) - {""}
    if variants:
        return lacking(spec, "it has weights of another variant alone", _choose(spec, variants))
    return _pickled(spec)


def _variants_of(names: Iterable[str]) -> set[str]:
    """Variants, such as "fp16", of the safetensors among files; "" for plain ones."""
    return {match["variant"] or "" for match in map(_WEIGHTS.fullmatch, names) if match}


def check_files(spec: str, folder: Path, parts: Mapping[str, Any], variant: str | None) -> None:
    """Check that a pipeline has all its parts, and the weights of its networks in safetensors.

    Parameters
    ----------
    spec : str
        Spec string, for messages.
    folder : Path
        Folder of the pipeline.
    parts : mapping from str to [library, class]
        Parts to load, as in `model_index.json`.
    variant : str, optional
        Variant of the weights, as in diffusers' `from_pretrained`.

    Raises
    ------
    SavedModelError
        For weights that are pickled, incomplete, or of another variant only.
    """
    found: set[str] = set()
    for part in parts:
        if not any((folder / part).glob("*")):
            raise lacking(spec, f"it has no folder {part}")
    for part in networks_of(parts):
        found |= _check_weights(spec, part, {path.name for path in (folder / part).iterdir()}, variant)
        _check_shards(spec, folder / part)
    # one network with the variant is enough, as diffusers takes plain files for the others
    if variant and variant not in found:
        raise lacking(spec, f"it has no files of the variant {variant!r}", _choose(spec, found - {""}))


def networks_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Classes of the parts that are networks of diffusers or transformers, the only ones that are ever loaded."""
    import diffusers
    import transformers

    libraries: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}
    libraries["kolors"] = getattr(diffusers.pipelines, "kolors", None)  # it has a text encoder of its own
    kinds = {part: getattr(libraries.get(library), name, None) for part, (library, name) in parts.items()}
    bases = {diffusers.ModelMixin, transformers.PreTrainedModel}
    return {part: kind for part, kind in kinds.items() if bases & set(getattr(kind, "__mro__", ()))}


def _check_weights(spec: str, part: str, names: set[str], variant: str | None) -> set[str]:
    """Check the files of a network, and return their variants."""
    variants = _variants_of(names)
    if "adapter_config.json" in names:
        raise lacking(spec, f"its {part} was saved with a LoRA that was not fused", f"before saving, type: {_FUSE}")
    if not variants and any(name.endswith(PICKLED) for name in names):
        raise _pickled(spec)
    if not variants:
        raise lacking(spec, f"its {part} has no weights")
    if variants.isdisjoint({"", variant}):
        raise lacking(spec, f"its {part} has weights of another variant alone", _choose(spec, variants))
    return variants


def _choose(spec: str, variants: set[str]) -> str:
    if not variants:
        return "leave the variant out"
    return " or ".join(f'type "diffusers:{spec}?variant={v}", or load(…, variant={v!r})' for v in sorted(variants))


def _check_shards(spec: str, folder: Path) -> None:
    """Check that the files of a network hold all weights in its index, if it has one."""
    # diffusers does not check, and leaves missing weights random
    for index in folder.glob("*.safetensors.index*.json"):
        try:
            weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
            held = {name: set(_keys(folder / name)) for name in set(weight_map.values()) if (folder / name).exists()}
        except (KeyError, OSError, SafetensorError, ValueError) as error:
            raise lacking(spec, f"its {folder.name} cannot be read: {error}") from error
        # first whole files, for a shorter message
        gone = sorted(set(weight_map.values()) - set(held))
        if gone:
            raise lacking(spec, f"its {folder.name} has no {choices(gone, 3)}")
        missing = sorted(key for key, name in weight_map.items() if key not in held[name])
        if missing:
            raise lacking(spec, f"its {folder.name} lacks {_few(missing)}")


# --- networks ---------------------------------------------------------------------------------------------------------


def denoising_network(pipe: Any) -> tuple[str, Any]:
    """Name and module of the part of a pipeline that predicts the noise, a U-Net or a transformer."""
    name = "unet" if hasattr(pipe, "unet") else "transformer"
    return name, getattr(pipe, name)


def load_networks(
    spec: str, folder: Path, parts: Mapping[str, Any], variant: str | None, **options: Any
) -> dict[str, nn.Module]:
    """Load the networks of a pipeline, each with all of its weights.

    Parameters
    ----------
    spec, folder, parts, variant
        As in `check_files`.
    **options
        Options of `from_pretrained` for every network.

    Raises
    ------
    SavedModelError
        For weights that are missing, superfluous or of another shape. The libraries themselves would only warn, and use
        random weights.
    """
    networks: dict[str, nn.Module] = {}
    for part, kind in networks_of(parts).items():
        # per network: diffusers would refuse a variant that this one lacks
        has_variant = variant in _variants_of(path.name for path in (folder / part).iterdir())
        with quiet():
            networks[part], report = kind.from_pretrained(
                folder / part,
                variant=variant if has_variant else None,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # listed in the report, all of them, instead of raised
                output_loading_info=True,
                **options,
            )
        _check_whole(spec, part, report)
    return networks


def _check_whole(spec: str, part: str, report: Mapping[str, Any]) -> None:
    """Check the report of `from_pretrained`: no weight is missing, superfluous or of another shape."""
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    mismatched = sorted(key for key, *_ in report["mismatched_keys"])
    problems = [
        *([f"lacks {_few(missing)}"] if missing else []),
        *([f"has {_few(unexpected)} for which there is no place"] if unexpected else []),
        *([f"has {_few(mismatched)} in another shape than its config says"] if mismatched else []),
    ]
    if problems:
        # superfluous weights of this name are the usual trace of an unfused LoRA
        adapted = any(map(_ADAPTED.search, unexpected))
        problem = f"its {part} {' and '.join(problems)}"
        if adapted:
            raise lacking(spec, f"{problem}, as of a LoRA that was not fused", f"before saving, type: {_FUSE}")
        raise lacking(spec, problem, "copy or download all of it, or save it again")


def _few(keys: list[str]) -> str:
    return f"{len(keys)} {'weight' if len(keys) == 1 else 'weights'} ({choices(keys, 3)})"
