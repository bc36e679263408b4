"""Registration of saved classifiers as timm models. The import registers every embedded pair, once."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg

import hybridclf  # its estimator is imported when a model is made, not when this is
from hybridclf.errors import InvalidInputError
from hybridclf.models import LateConditionedDenoiser, build
from hybridclf.pretrained.catalog import roots

from ._timm_models import HybridModel, model_config, networks_of

__all__ = ["default_cfgs", "register", "register_folders"]

default_cfgs: dict[str, Any] = {}
"""Configurations by name, read by timm's registry when a model is registered."""


def register(name: str, folder: str | Path) -> None:
    """Register a saved classifier as a timm model.

    Parameters
    ----------
    name : str
        Name for `timm.create_model`.
    folder : path
        Folder written by `HybridClassifier.save`; it is read when the model is created.

    Raises
    ------
    InvalidInputError
        If timm has a model of this name, or the classifier takes no images.
    """
    if timm.is_model(name):
        raise InvalidInputError(f"timm has a model {name!r} already; register {folder} under another name")
    saved = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    # `file` is timm's key for local weights; here it is the folder
    config = model_config(saved["image_shape"], saved["classes"]["values"], file=str(folder))
    default_cfgs.update(generate_default_cfgs({name: config}))
    register_model(_entrypoint(name))


def register_folders(parent: Path) -> None:
    """Register every saved classifier of images in a folder's subfolders, as `hybridclf_` and the folder's name."""
    for path in sorted(parent.glob("*/model.json")):
        shape = json.loads(path.read_text(encoding="utf-8"))["image_shape"]
        # models of vectors are no timm models
        if shape is None or len(shape) == 3:
            register("hybridclf_" + re.sub(r"\W", "_", path.parent.name), path.parent)


def _entrypoint(name: str) -> Callable[..., HybridModel]:
    """Make the function that timm calls to create a model of a name."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: dict[str, Any] | str | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        **kwargs: Any,
    ) -> HybridModel:
        config = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).to_dict()
        weights, place = (
            config.pop("state_dict", None),
            (kwargs.pop("device", None) or "cpu", kwargs.pop("dtype", None)),
        )
        _check_arguments(name, config, kwargs)
        estimator = hybridclf.HybridClassifier.load(config["file"])
        # the default of timm.create_model
        if not pretrained:
            _forget(name, estimator)
        model = HybridModel(estimator, config, kwargs.get("in_chans"))
        if weights:
            model.load_state_dict(weights)
        return model.to(*place)

    create.__name__ = create.__qualname__ = name
    globals()[name] = create  # timm looks the function up in its module
    return create


def _check_arguments(name: str, config: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that would need another model than the trained one."""
    if config.get("source"):
        raise InvalidInputError(
            f"{name} is more than its networks, which are all that timm writes into a folder or a repository; keep it "
            "by HybridClassifier.save, and hybridclf_adapters.timm.register gives it a name"
        )
    channels, *size = config["input_size"]
    # values that change nothing are accepted, since timm passes them along
    allowed = {"num_classes": [config["num_classes"]], "in_chans": [channels, 3 if channels == 1 else channels]}
    allowed["img_size"] = [tuple(size), list(size), *(size[:1] if size[0] == size[1] else [])]
    for key, value in kwargs.items():
        if value not in allowed.get(key, [None, False]):
            raise InvalidInputError(f"{name} is trained already and cannot be created with {key}={value!r}")


def _forget(name: str, estimator: Any) -> None:
    """Give the networks random weights, as timm does without `pretrained`."""
    denoiser = estimator.denoiser_
    if not isinstance(denoiser, LateConditionedDenoiser):
        raise InvalidInputError(f"{name} cannot be created without its weights; pass pretrained=True")
    denoiser.network.load_state_dict(build(denoiser.network.config).state_dict())
    for network in networks_of(estimator.proposer_).values():
        for layer in network.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()


for _root in roots():
    register_folders(_root)
