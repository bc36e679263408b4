"""Catalogue of embedded models, saved models by folder, and installed adapters."""

import ast
import json
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from .. import plugins
from ..errors import InvalidInputError

__all__ = [
    "DEFAULT_MODEL",
    "Adapter",
    "EmbeddedModel",
    "adapters",
    "model_folder",
    "models",
    "pretrained_folder",
]

DEFAULT_MODEL = "cifar10"
"""Name of the embedded model that is used by default."""

_PRETRAINED = Path(__file__).parent


@dataclass(frozen=True)
class EmbeddedModel:
    """Model that comes with the package.

    Attributes
    ----------
    name : str
        Name of the model.
    about : str
        Description in one line.
    labels : list of labels
        Classes of the model.
    """

    name: str
    about: str
    labels: list[Any]


@dataclass(frozen=True)
class Adapter:
    """Installed adapter.

    Attributes
    ----------
    tier : "proposer", "denoiser", "trainable" or "engine"
        Kind of the adapter.
    name : str
        Name in spec strings.
    about : str
        Description of its spec strings in one line.
    """

    tier: plugins.Kind
    name: str
    about: str


def model_folder(model: str | Path) -> Path:
    """Folder of an embedded model by name, or of a saved one by path.

    Raises
    ------
    InvalidInputError
        If there is neither.
    """
    is_other = str(model) not in _names() and Path(model).is_dir()
    return Path(model) if is_other else pretrained_folder(str(model))


def pretrained_folder(name: str) -> Path:
    """Folder of an embedded model.

    Raises
    ------
    InvalidInputError
        If there is no model of this name.
    """
    if name not in _names():
        raise InvalidInputError(
            f"there is no embedded model {name!r}; there is {', '.join(_names())}; of a saved model give the folder"
        )
    return _PRETRAINED / name


def _names() -> list[str]:
    return sorted(path.parent.name for path in _PRETRAINED.glob("*/model.json"))


def models() -> list[EmbeddedModel]:
    """All embedded models, by name; what they know is the first paragraph of their README.md."""
    return [_model(name) for name in _names()]


def _model(name: str) -> EmbeddedModel:
    saved = json.loads((_PRETRAINED / name / "model.json").read_text(encoding="utf-8"))
    readme = (_PRETRAINED / name / "README.md").read_text(encoding="utf-8")
    return EmbeddedModel(name, _line(readme.partition("\n\n")[2]), saved["classes"]["values"])


def adapters() -> list[Adapter]:
    """List the installed adapters, by tier and name, without importing them."""
    return [
        Adapter(kind, name, _about(entry))
        for kind in get_args(plugins.Kind)
        for name, entry in sorted(plugins.adapters(kind).items())
    ]


def _about(entry: EntryPoint) -> str:
    """First paragraph of an adapter module's docstring, parsed from its source."""
    try:
        found = find_spec(entry.module)
        # parsed, not imported: the library behind an adapter may be large or missing
        source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
        return _line(ast.get_docstring(ast.parse(source)) or "")
    except (ImportError, OSError, SyntaxError, ValueError):  # a broken adapter is still installed
        return ""


def _line(text: str) -> str:
    """Join the first paragraph to one line."""
    return " ".join(text.partition("\n\n")[0].split())
