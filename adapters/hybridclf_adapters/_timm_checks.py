"""Checks by timm's registry that a model is known and its outputs are classes."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.data import infer_imagenet_subset
from timm.models import get_pretrained_cfg, is_model_pretrained, parse_model_name

from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError, choices

__all__ = ["check_classifier", "check_name", "is_labelled"]

WIDEST_EMBEDDING = 4096
"""Most outputs of an embedding. The widest in timm has 1280 (ViT-bigG).

More outputs are classes without names in timm, such as Bamboo's 115,217.
"""


def check_name(spec: str, needs_weights: bool, features_only: bool = False) -> None:
    """Check before any download that timm has the model and, if needed, weights for it, of a classifier as a rule."""
    try:
        source, name = parse_model_name(spec)
        known = source is None and timm.is_model(name)
        config = get_pretrained_cfg(name) if known else None  # raises for an unknown tag
    except (ValueError, RuntimeError) as error:
        raise UnknownSpecError(_path(spec) or f"{error} {_with_weights(spec)}") from error
    if source is None and not known:
        raise UnknownSpecError(_path(spec) or _unknown_model(name))
    if not known or not needs_weights:
        return
    if config is None or not is_model_pretrained(name):
        raise UnknownSpecError(f"timm has no weights for {name!r}. {_with_weights(name)}")
    if not features_only:
        _check_outputs(spec, name, config, config.num_classes)


def _path(spec: str) -> str:
    """Sentence on a spec that is the path of a folder or file, or a checkpoint of no model; "" for any other."""
    if Path(spec).is_dir():
        return f"{spec!r} is a folder; type 'timm:local-dir:{spec}'"
    if Path(spec).is_file():
        return f"{spec!r} is a file; type 'timm:MODEL/{spec}' with the model that its weights are of"
    model, _, file = spec.partition("/")
    return _unknown_model(model) if Path(file).is_file() else ""


def _unknown_model(name: str) -> str:
    near = get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
    hint = f"did you mean {choices(near)}?" if near else "timm.list_models() lists them all"
    return f"timm has no model {name!r}; {hint}"


def _with_weights(name: str) -> str:
    found = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    return f"It has weights for {choices(found)}." if found else ""


def check_classifier(spec: str, model: Any) -> None:
    """Check that a loaded model's outputs are classes, as many as in its configuration.

    Raises
    ------
    InvalidInputError
        If they are not classes.
    SavedModelError
        If their number differs, as timm has then made the last layer's weights random.
    """
    config = model.pretrained_cfg
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    registered = get_pretrained_cfg(name) if is_model_pretrained(name) else None
    named = config.get("label_names")
    if not model.num_classes or not named:
        _check_outputs(spec, name, registered, model.num_classes)
    n_named = len(named) if isinstance(named, (list, tuple)) else model.num_classes
    for n, whose in ((config.get("num_classes", model.num_classes), "weights for"), (n_named, "names for")):
        if n != model.num_classes:
            raise SavedModelError(
                f"{spec!r} has {whose} {n} classes and a model of {model.num_classes}; save it anew by "
                "timm.models.save_for_hf"
            )


def _check_outputs(spec: str, name: str, registered: Any, n_outputs: int) -> None:
    """Check by timm's registry that a model's outputs are classes.

    Raises
    ------
    InvalidInputError
        For features only, or an embedding such as CLIP's of images.
    """
    if not n_outputs:
        raise InvalidInputError(f"{spec!r} has no classifier, only features; {_labelled(name)}")
    if registered and n_outputs == registered.num_classes and not is_labelled(name):
        raise InvalidInputError(
            f"the {n_outputs} outputs of {spec!r} are an embedding of the image, no classes; {_labelled(name)}, or for "
            "any classes by their names an open_clip model, such as 'open_clip:ViT-B-32-quickgelu/openai'"
        )


def _labelled(name: str) -> str:
    """Hint at classifier weights of a model."""
    found = [other for other in timm.list_pretrained(f"{name.partition('.')[0]}.*") if is_labelled(other)]
    return f"choose {choices(found, 5)}" if found else "choose weights that end in in1k or the like"


def is_labelled(name: str) -> bool:
    """Tell whether the outputs of timm's weights are classes."""
    config = get_pretrained_cfg(name)
    known = bool(config.label_names or infer_imagenet_subset({"num_classes": config.num_classes}))
    return known or config.num_classes > WIDEST_EMBEDDING
