"""Image preparation of open_clip models: mean, deviation, interpolation and resizing, by options or configurations."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridclf.errors import InvalidInputError, choices

__all__ = ["check_image_options", "of_file", "of_tag", "plain", "tag_of"]

_log = logging.getLogger(__name__)

OPTIONS = {"image_mean": "mean", "image_std": "std", "interpolation": "interpolation", "resize_mode": "resize_mode"}
"""Keys of open_clip's configurations, by the loader's option."""

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")


def check_image_options(
    image_mean: float | Sequence[float] | None,
    image_std: float | Sequence[float] | None,
    interpolation: str | None,
    resize_mode: str | None,
) -> dict[str, Any]:
    """Check the given options, and expand single numbers to one per channel.

    Raises
    ------
    InvalidInputError
        For anything but one or three finite numbers, a deviation that is not above 0, or an unknown mode.
    """
    mean, std = _three("image_mean", image_mean), _three("image_std", image_std)
    if std and min(std) <= 0:
        raise InvalidInputError(f"image_std must be above 0, got {image_std!r}")
    _check_choice("interpolation", interpolation, INTERPOLATIONS)
    _check_choice("resize_mode", resize_mode, RESIZE_MODES)
    given = zip(OPTIONS, (mean, std, interpolation, resize_mode), strict=True)
    return {option: value for option, value in given if value is not None}


def _check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise InvalidInputError(f"{name} must be one of {choices(known)}, got {value!r}")


def _three(name: str, value: Any) -> tuple[float, ...] | None:
    """Expand one number, or check three, for the channels."""
    if value is None:
        return None
    try:
        numbers = tuple(map(float, value)) if hasattr(value, "__len__") else (float(value),) * 3
    except (TypeError, ValueError):
        numbers = ()
    if isinstance(value, str) or len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InvalidInputError(f"{name} must be a number, or three for red, green and blue, got {value!r}")
    return numbers


def of_tag(name: str, tag: str) -> dict[str, Any]:
    """Image preparation of a model's pretrained tag, as options of the loader."""
    import open_clip

    # open_clip's own defaults are OpenAI's values
    config = {**_openais(), **open_clip.get_pretrained_cfg(name, tag)}
    return {option: config[key] for option, key in OPTIONS.items()}


def of_file(name: str, path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Image preparation of a model's checkpoint, as options of the loader; given ones take precedence.

    The tag in the file's name decides. Without one, all tags of the model may agree. If they do not, most of them
    decide, and OpenAI's models if there are no tags; such an assumption is logged.
    """
    import open_clip

    tag = tag_of(name, path)
    if tag:
        return {**of_tag(plain(name), tag), **given}
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = [of_tag(name, tag) for tag in tags]
    # the most frequent configuration, as a whole
    usual = max(known, key=known.count) if known else of_tag(name, "none")
    assumed = [o for o in OPTIONS if o not in given and (not known or any(usual[o] != other[o] for other in known))]
    if assumed:
        _log.warning(
            "nothing says how images are prepared for %s: assumed %s, as %s; if that is wrong, give %s as options%s",
            path,
            ", ".join(f"{option}={usual[option]!r}" for option in assumed),
            f"most pretrained tags of {name} have it" if known else "OpenAI's models have it",
            ", ".join(assumed),
            f", or have one of these tags in the file's name: {choices(tags, 20)}" if known else "",
        )
    return {**usual, **given}


def tag_of(name: str, path: str) -> str | None:
    """Find the pretrained tag of a checkpoint, or None.

    The file's name has the tag in it, or is that of the tag's own file, or the file is in the hub's cache of the tag's
    repository.
    """
    import open_clip

    file, name = Path(path), plain(name)
    tags = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    own = [tag for tag, config in tags.items() if _is_of(file, config)]
    # whole words: "openai" must not match in "notopenai"
    named = [tag for tag in tags if f" {_words(tag)} " in f" {_words(file.stem)} "]
    # the longest tag, of which a shorter one may be a part
    return max(named or own, key=len, default=None)


def plain(name: str) -> str:
    """Cut "-quickgelu" off a model's name."""
    return name.removesuffix("-quickgelu")


def _is_of(file: Path, config: Mapping[str, Any]) -> bool:
    repository = config.get("hf_hub", "").rpartition("/")[0].replace("/", "--")
    return file.name == Path(config.get("url", "")).name or f"models--{repository}" in file.parts


def _words(text: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", text.lower()))


def _openais() -> dict[str, Any]:
    import open_clip

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
