"""Checkpoints in a single file, as diffusers' `from_single_file` reads them, with configurations of a local folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hybridclf.errors import InvalidInputError, UnknownSpecError
from hybridclf.utils.installing import require

from ._diffusers_files import INDEX, PICKLED, check_files, lacking, load_networks, networks_of
from ._diffusers_logging import quiet

__all__ = ["check_single", "load_single"]

VAE = ("first_stage_model.", "vae.")
"""Beginnings of a VAE's weights' names in a checkpoint."""


def check_single(spec: str, config: Path) -> None:
    """Check that a spec names a checkpoint in a single file, and `config` the folder of a saved pipeline.

    Raises
    ------
    UnknownSpecError
        If one of them is something else or does not exist.
    SavedModelError
        If the folder has pickled weights.
    InvalidInputError
        If the spec names a folder, which has its own configurations.
    """
    file = Path(spec).expanduser()
    if file.is_dir():
        raise InvalidInputError(f"{spec!r} is a folder, which has configurations of its own; leave config out")
    if not file.is_file() or file.suffix != ".safetensors":
        raise UnknownSpecError(f"{spec!r} is not a checkpoint in safetensors, which alone goes with config")
    if not (config / INDEX).is_file():
        raise UnknownSpecError(
            f"{str(config)!r} is not the folder of a saved pipeline: it has no {INDEX}; give a folder of the "
            "checkpoint's family, in which weights may be absent"
        )
    pickled = [path for path in config.glob("*/*") if path.suffix in PICKLED]
    if pickled:
        problem = f"{pickled[0]} is pickled and can run any code when read"
        raise lacking(spec, problem, "remove it, as weights may be absent")


def load_single(
    spec: str,
    pipeline: Any,
    config: Path,
    parts: Mapping[str, Any],
    without: Mapping[str, Any],
    variant: str | None,
    dtype: torch.dtype,
) -> Any:
    """Load a pipeline from a checkpoint; what this lacks, such as T5, comes from the folder of configurations.

    Parameters
    ----------
    spec : str
        Path of the checkpoint.
    pipeline : type
        Class of the pipeline.
    config : Path
        Folder of a saved pipeline of this class.
    parts : mapping from str to [library, class]
        Parts to load, as in `model_index.json`.
    without : mapping
        Keywords that leave out the parts for generation only.
    variant : str or None
        Variant of the weights that come from the folder.
    dtype : torch.dtype
        Type of the weights.

    Raises
    ------
    InvalidInputError
        If diffusers reads no checkpoints of this family.
    SavedModelError
        If a weight is in neither of the two, or the checkpoint has some that diffusers would leave out or misread.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    require("accelerate", "a checkpoint in a single file needs", "tune")  # without it, missing weights would be random
    if not hasattr(pipeline, "from_single_file"):
        raise InvalidInputError(f"diffusers reads no {pipeline.__name__} from a single file; give the folder of one")
    file = Path(spec).expanduser()
    _check_keys(spec, file, config)
    # diffusers takes what is not in the checkpoint from the folder only if it happens to know the name of its file
    others = {name: parts[name] for name in _not_in(file, parts)}
    if others:
        check_files(spec, config, others, variant)
    networks = load_networks(spec, config, others, variant, dtype=dtype)
    try:
        with quiet():
            pipe = pipeline.from_single_file(
                str(file), config=str(config), local_files_only=True, dtype=dtype, **networks, **without
            )
    except (SingleFileComponentError, NotImplementedError) as error:  # the second of weights that are nowhere
        raise lacking(spec, str(error).partition("\n")[0], "give a checkpoint with all of it") from error
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            missing = [key for key, value in part.named_parameters() if value.is_meta]
            if missing:
                raise lacking(spec, f"it lacks {len(missing)} weights of the {name}, such as {missing[0]!r}")
    return pipe


def _check_keys(spec: str, file: Path, config: Path) -> None:
    """Check that a checkpoint has nothing that diffusers leaves out without a word.

    Raises
    ------
    SavedModelError
        For scaled weights, a LoRA, or a model of v beside a scheduler of another parametrisation.
    """
    with safe_open(file, framework="pt") as weights:
        keys = set(weights.keys())
    if "scaled_fp8" in keys or any(key.endswith(".scale_weight") for key in keys):
        raise lacking(spec, "its weights are scaled, which diffusers does not undo", "give them in fp16 or bf16")
    if leftover := next((key for key in keys if "lora_" in key), None):
        raise lacking(spec, f"it holds a LoRA ({leftover})", "give the checkpoint, and the LoRA as ?lora=FILE")
    scheduler = config / "scheduler" / "scheduler_config.json"
    if "v_pred" in keys and scheduler.is_file():
        predicts = json.loads(scheduler.read_text(encoding="utf-8")).get("prediction_type")
        if predicts != "v_prediction":
            raise lacking(
                spec,
                f"it predicts v, and the scheduler in {config} is for {predicts or 'epsilon'}",
                'give a folder whose scheduler_config.json has "prediction_type": "v_prediction"'
                + (' and "rescale_betas_zero_snr": true' if "ztsnr" in keys else ""),
            )


def _not_in(file: Path, parts: Mapping[str, Any]) -> list[str]:
    """List the networks of a pipeline that a checkpoint lacks as a whole, by diffusers' own rules."""
    from diffusers.loaders.single_file_utils import is_clip_model_in_single_file, is_t5_in_single_file

    with safe_open(file, framework="pt") as weights:
        keys = set(weights.keys())

    def is_there(name: str, kind: Any) -> bool:
        if name == "vae":
            return any(key.startswith(VAE) for key in keys)
        if not name.startswith("text_encoder"):
            return True
        clip: bool = is_clip_model_in_single_file(kind, keys)
        return clip or (kind.__name__.startswith("T5") and is_t5_in_single_file(keys))

    return [name for name, kind in networks_of(parts).items() if not is_there(name, kind)]
