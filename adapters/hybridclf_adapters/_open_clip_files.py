"""Files of open_clip models: what a spec names, where its weights and tokenizer are, and whether they fit."""

import os.path
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from hybridclf.errors import InvalidInputError, UnknownSpecError, choices

from ._open_clip_images import of_file, of_tag, plain, tag_of

__all__ = [
    "HUB",
    "LOCAL",
    "cache_folder",
    "check_quick_gelu",
    "check_revision",
    "fetched",
    "image_options",
    "needs_hub",
    "resolve",
    "tokenizer_of",
]

HUB, LOCAL = "hf-hub:", "local-dir:"

TOKENIZER_OPTIONS = frozenset({"clean", "language", "strip_sep_token"})
"""Options that a model's configuration may give its tokenizer; transformers takes others, that run a folder's code."""


def resolve(spec: str) -> tuple[str, str | None]:
    """Split a spec into open_clip's model name and pretrained tag, or path of a checkpoint, and check them."""
    if spec.startswith((HUB, LOCAL)):
        _check_folder(spec)
        return spec, None
    import open_clip

    name, _, pretrained = spec.partition("/")
    if name not in open_clip.list_models():
        raise UnknownSpecError(_unknown_model(spec, name, open_clip.list_models()))
    if open_clip.is_pretrained_cfg(name, pretrained):
        check_quick_gelu(name, pretrained)
    elif Path(pretrained).is_file():
        tag = tag_of(name, pretrained)
        if tag:
            check_quick_gelu(name, tag, pretrained)
    else:
        raise UnknownSpecError(_unknown_weights(name, pretrained))
    return name, pretrained


def image_options(name: str, pretrained: str, given: dict[str, Any]) -> dict[str, Any]:
    """Image preparation of a model's tag or checkpoint, as options of `load`; given ones take precedence."""
    import open_clip

    if open_clip.is_pretrained_cfg(name, pretrained):
        return {**of_tag(name, pretrained), **given}
    return of_file(name, pretrained, given)


def cache_folder(cache_dir: str | Path | None) -> str | None:
    if cache_dir is None:
        return None
    if not isinstance(cache_dir, str | Path) or Path(cache_dir).expanduser().is_file():
        raise InvalidInputError(f"cache_dir must be the path of a folder, got {cache_dir!r}")
    return str(Path(cache_dir).expanduser())


def check_revision(spec: str, name: str, pretrained: str | None, revision: Any) -> None:
    """Check that a revision is a text, and the model on the hub."""
    if revision is None:
        return
    if not isinstance(revision, str) or not revision:
        raise InvalidInputError(f"revision must be a branch, tag or commit such as 'main', got {revision!r}")
    import open_clip

    if not name.startswith(HUB) and not open_clip.get_pretrained_cfg(name, pretrained or "").get("hf_hub"):
        raise InvalidInputError(f"revision={revision!r} is for models on the hub, and {spec!r} is none; leave it out")


def needs_hub(name: str, pretrained: str | None) -> bool:
    """Tell whether a model needs the hub or its cache: for weights, a tokenizer, or a text tower's shape."""
    import open_clip

    if name.startswith(HUB) or open_clip.is_pretrained_cfg(name, pretrained or ""):
        return True
    text = open_clip.get_model_config(name)["text_cfg"]
    return bool(text.get("hf_model_name") or (text.get("hf_tokenizer_name") and not name.startswith(LOCAL)))


def fetched(name: str, pretrained: str | None, cache: str | None, revision: str | None) -> tuple[str, str | None]:
    """Download a model if necessary, and return open_clip's name and checkpoint of the local files."""
    import open_clip
    from open_clip.pretrained import download_pretrained_from_hf

    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        config = Path(download_pretrained_from_hf(repository, "open_clip_config.json", revision, cache))
        # the folder's name is the commit, so that the weights are of the same one as the configuration
        download_pretrained_from_hf(repository, revision=config.parent.name, cache_dir=cache)
        return f"{LOCAL}{config.parent}", None
    tag = open_clip.get_pretrained_cfg(name, pretrained or "")
    if not tag:
        return name, pretrained
    if not tag.get("hf_hub"):
        return name, open_clip.download_pretrained(tag, cache_dir=cache)
    # "OWNER/REPO/" or "OWNER/REPO/FILE"
    repository, file = os.path.split(tag["hf_hub"])
    return name, download_pretrained_from_hf(repository, file or None, revision, cache)


def tokenizer_of(name: str, source: str, cache: str | None, revision: str | None) -> Callable[..., Tensor]:
    """Load the tokenizer of a model whose files are at `source`; on the hub, it may be another repository's.

    Raises
    ------
    InvalidInputError
        If the configuration gives the tokenizer an option that is not one of `TOKENIZER_OPTIONS`.
    """
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    text = open_clip.get_model_config(source)["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    if unknown := sorted(options.keys() - TOKENIZER_OPTIONS):
        raise InvalidInputError(
            f"the open_clip_config.json of {name!r} gives its tokenizer the option {unknown[0]!r}, and only "
            f"{choices(sorted(TOKENIZER_OPTIONS))} are taken: others may run code that comes with the model"
        )
    repository = text.get("hf_tokenizer_name")
    if not name.startswith(HUB) or not repository:
        return open_clip.get_tokenizer(source, cache_dir=cache)
    # another repository does not have this one's revision
    own = revision is not None and repository == name.removeprefix(HUB)
    return HFTokenizer(
        repository,
        context_length=text.get("context_length", 77),
        cache_dir=cache,
        tokenizer_mode=text.get("tokenizer_mode"),
        **options,
        **({"revision": revision} if own else {}),
    )


def _unknown_weights(name: str, pretrained: str) -> str:
    import open_clip

    missing = f"{pretrained!r} is neither a checkpoint file nor a pretrained tag of {name}"
    file, tags = f"'open_clip:{name}/FILE' with a checkpoint file", open_clip.list_pretrained_tags_by_model(name)
    tag = f"'open_clip:{name}/TAG' with one of its tags {choices(tags, 20)}, or " if tags else ""
    return f"{missing if pretrained else f'{name} alone names no weights'}; type {tag}{file}"


def _unknown_model(spec: str, name: str, known: list[str]) -> str:
    if Path(spec).is_dir():
        return f"{spec!r} is a folder; type 'open_clip:local-dir:{spec}'"
    if Path(spec).is_file():
        return f"{spec!r} is a file; type 'open_clip:MODEL/{spec}' with the model that its weights are of"
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {choices(near)}?" if near else "open_clip.list_models() lists them all"
    return f"open_clip has no model {name!r} (type MODEL/PRETRAINED, such as 'RN50-quickgelu/openai'); {hint}"


def _check_folder(spec: str) -> None:
    """Check that a local folder has a configuration and weights; open_clip itself accepts missing weights."""
    schema, _, path = spec.partition(":")
    folder = Path(path)
    if schema != "local-dir":
        return
    if not (folder / "open_clip_config.json").is_file():
        raise UnknownSpecError(f"there is no open_clip_config.json in {folder}; give the folder of an open_clip model")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise UnknownSpecError(f"there are no weights in {folder}; put open_clip_model.safetensors there")


def check_quick_gelu(name: str, tag: str, checkpoint: str | None = None) -> None:
    """Refuse weights of a tag, or a checkpoint of it, trained with another activation; open_clip only warns."""
    import open_clip

    base, given = plain(name), checkpoint or tag
    needs = open_clip.get_pretrained_cfg(base, tag).get("quick_gelu", False)
    has = open_clip.get_model_config(name).get("quick_gelu", False)
    if needs and not has:
        raise InvalidInputError(
            f"the weights {tag!r} were trained with QuickGELU, which {name} does not have, and would be wrong; "
            f"type 'open_clip:{name}-quickgelu/{given}'"
        )
    if name != base and not needs:
        raise InvalidInputError(
            f"the weights {tag!r} were trained without QuickGELU, which {name} has, and would be wrong; "
            f"type 'open_clip:{base}/{given}'"
        )
