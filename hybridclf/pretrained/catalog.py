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
    "roots",
]

DEFAULT_MODEL = "cifar10"
"""Name of the embedded model that is used by default."""

_PRETRAINED = Path(__file__).parent

_MORE = "hybridclf_models"
"""The package of a distribution of its own, for embedded models that are too big for ours."""


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
    # an embedded model's name wins over a folder of the same name
    is_other = str(model) not in _folders() and Path(model).is_dir()
    return Path(model) if is_other else pretrained_folder(str(model))


def pretrained_folder(name: str) -> Path:
    """Folder of an embedded model.

    Raises
    ------
    InvalidInputError
        If there is no model of this name.
    """
    found = _folders()
    if name not in found:
        more = "" if len(roots()) > 1 else "; more are in the distribution hybridclf-models, models/ of a checkout"
        raise InvalidInputError(
            f"there is no embedded model {name!r}; there is {', '.join(found)}{more}; for a saved model give its folder"
        )
    return found[name]


def roots() -> list[Path]:
    """Folders of embedded models: our own, and that of hybridclf-models if it is installed or in this checkout."""
    spec = find_spec(_MORE)
    installed = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    checkout = _PRETRAINED.parents[1] / "models" / _MORE
    return [_PRETRAINED, *(installed or [checkout] * checkout.is_dir())]


def _folders() -> dict[str, Path]:
    """Folders of the embedded models, by name."""
    found = {path.parent.name: path.parent for root in roots() for path in root.glob("*/model.json")}
    return dict(sorted(found.items()))


def models() -> list[EmbeddedModel]:
    """List the embedded models, by name; the first paragraph of their README.md describes them."""
    return [_model(*item) for item in _folders().items()]


def _model(name: str, folder: Path) -> EmbeddedModel:
    saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    readme = (folder / "README.md").read_text(encoding="utf-8")
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
