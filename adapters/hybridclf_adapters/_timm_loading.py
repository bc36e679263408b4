"""Loading of timm models: checkpoints with another head, label names, preparation of images, and errors."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from hybridclf.errors import HybridClfError, InvalidInputError, SavedModelError, UnknownSpecError

__all__ = ["create", "data_config", "loading_error", "read_label_names", "split_spec"]


def split_spec(spec: str) -> tuple[str, str | None]:
    """Split a spec into the model, and the path of the checkpoint if it is "MODEL/CHECKPOINT"."""
    name, slash, checkpoint = spec.partition("/")
    return (name, checkpoint) if slash and ":" not in name and timm.is_model(name) else (spec, None)


def create(name: str, path: str | None) -> nn.Module:
    """Create timm's model with its own weights, or with a file's, which timm converts like its own.

    Raises
    ------
    UnknownSpecError
        If there is no such file.
    """
    if path is None:
        return timm.create_model(name, pretrained=True)
    if not Path(path).is_file():
        raise UnknownSpecError(f"there is no checkpoint {path!r}; give the path of a .safetensors or .pth file")
    weights = load_state_dict(path, weights_only=True)
    overlay = {"state_dict": weights, **_head(weights, get_pretrained_cfg(name))}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    # not needed any more, and as large as the model
    model.pretrained_cfg.pop("state_dict", None)
    return model


def read_label_names(given: str, n_classes: int) -> list[str]:
    """Read names of all classes, from a text file or with commas between them.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, a name repeats or is empty, or there are more or fewer than classes.
    """
    is_file = given.lower().endswith(".txt")
    try:
        text = Path(given).read_text(encoding="utf-8-sig").strip("\n") if is_file else given
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"label_names={given!r} cannot be read as a text file: {error}") from error
    names = [name.strip() for name in text.split("\n" if is_file else ",")]
    wrong = [repr(name) for name, n in Counter(names).items() if n > 1 or not name]
    if len(names) != n_classes or wrong:
        found = f"{wrong[0]} more than once, or empty" if wrong else f"{len(names)} names"
        raise InvalidInputError(
            f"label_names must be {n_classes} different names, one for each output in its order, got {found}"
        )
    return names


def _head(weights: Mapping[str, Tensor], config: Any) -> dict[str, Any]:
    """Changes of timm's configuration for weights with another number of classes; empty if it is the same."""
    layers = getattr(config, "classifier", None) or ()
    layer = layers if isinstance(layers, str) else next(iter(layers), "")
    if f"{layer}.weight" not in weights:
        return {}
    n_outputs = len(weights[f"{layer}.weight"])
    # an offset of 1 is an extra background class in the weights
    as_timms = n_outputs == config.num_classes + (config.label_offset or 0)
    return {} if as_timms else {"num_classes": n_outputs, "label_offset": None, "label_names": None}


def data_config(model: Any) -> dict[str, Any]:
    """Make timm's configuration of image preparation in tests."""
    config = dict(model.pretrained_cfg)
    if config.get("fixed_input_size"):  # a larger size for tests would not fit
        config["test_input_size"] = None
    if config.get("crop_mode") == "squash":  # `hybridclf train` saves it for the whole image; a test crop would cut it
        config["test_crop_pct"] = None
    for key in ("mean", "std"):  # a grey model may be saved with three values of the RGB model it was made from
        values = config.get(key) or ()
        if len(values) not in (0, 1, config["input_size"][0]):
            config[key] = (sum(values) / len(values),)
    return resolve_model_data_config(model, pretrained_cfg=config, use_test_size=True)


def loading_error(spec: str, error: Exception) -> HybridClfError:
    """Convert an exception of timm's loading to ours."""
    said = textwrap.shorten(str(error), 400, placeholder=" …")
    if isinstance(error, FileNotFoundError) and spec.startswith("local-dir:"):
        return UnknownSpecError(f"{spec!r} is no folder of a timm model: {said}")
    if isinstance(error, KeyError):
        return SavedModelError(
            f"{spec!r} is no timm model: its config.json has no {said}; save one by timm.models.save_for_hf"
        )
    return SavedModelError(
        f"{spec!r} cannot be loaded: {type(error).__name__}: {said}; copy or download it again if it is damaged, and "
        "name the model that the weights were trained with (timm.models.save_for_hf keeps both, for "
        "'timm:local-dir:FOLDER')"
    )
