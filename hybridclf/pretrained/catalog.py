"""What there is to choose from: embedded models, folders of saved ones, and installed adapters."""

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
"""The embedded model that is asked where none is named."""

_PRETRAINED = Path(__file__).parent

_MORE = "hybridclf_models"
"""The package of a distribution of its own, for embedded models that are too big for ours."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that comes with the package: its name, what it knows, and the labels it was saved with."""

    name: str
    about: str
    labels: list[Any]


@dataclass(frozen=True)
class Adapter:
    """An installed adapter: the tier it loads, its name, and what its spec strings look like."""

    tier: plugins.Kind
    name: str
    about: str


def model_folder(model: str | Path) -> Path:
    """Where the embedded model of that name lies, or else the folder of that path.

    Raises
    ------
    InvalidInputError
        If there is neither.
    """
    is_other = str(model) not in _folders() and Path(model).is_dir()
    return Path(model) if is_other else pretrained_folder(str(model))


def pretrained_folder(name: str) -> Path:
    """Where the embedded model of that name lies.

    Raises
    ------
    InvalidInputError
        If there is none of that name.
    """
    found = _folders()
    if name not in found:
        more = "" if len(roots()) > 1 else "; more are in the distribution hybridclf-models, models/ of a checkout"
        raise InvalidInputError(
            f"there is no embedded model {name!r}; there is {', '.join(found)}{more}; of a saved model give the folder"
        )
    return found[name]


def roots() -> list[Path]:
    """Folders of embedded models: our own, and that of hybridclf-models if it is installed or in this checkout."""
    spec = find_spec(_MORE)
    installed = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    checkout = _PRETRAINED.parents[1] / "models" / _MORE
    return [_PRETRAINED, *(installed or [checkout] * checkout.is_dir())]


def _folders() -> dict[str, Path]:
    """Where each embedded model lies, by name."""
    found = {path.parent.name: path.parent for root in roots() for path in root.glob("*/model.json")}
    return dict(sorted(found.items()))


def models() -> list[EmbeddedModel]:
    """All embedded models, by name; what they know is the first paragraph of their README.md."""
    return [_model(*item) for item in _folders().items()]


def _model(name: str, folder: Path) -> EmbeddedModel:
    saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    readme = (folder / "README.md").read_text(encoding="utf-8")
    return EmbeddedModel(name, _line(readme.partition("\n\n")[2]), saved["classes"]["values"])


def adapters() -> list[Adapter]:
    """All installed adapters, by tier and name; none of them is imported."""
    return [
        Adapter(kind, name, _about(entry))
        for kind in get_args(plugins.Kind)
        for name, entry in sorted(plugins.adapters(kind).items())
    ]


def _about(entry: EntryPoint) -> str:
    """First paragraph of the docstring of an adapter's module, read from its source."""
    try:
        found = find_spec(entry.module)
        source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
        return _line(ast.get_docstring(ast.parse(source)) or "")
    except (ImportError, OSError, SyntaxError, ValueError):  # a broken adapter is still installed
        return ""


def _line(text: str) -> str:
    """The first paragraph as one line."""
    return " ".join(text.partition("\n\n")[0].split())
