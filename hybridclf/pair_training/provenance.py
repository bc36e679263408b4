"""Provenance of a training: the constants and versions that decide it beside its settings."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .. import __version__

__all__ = ["constants", "versions"]


def versions() -> dict[str, str]:
    """Versions, by name, of the packages that decide the result of a training."""
    return {"hybridclf": __version__, "timm": version("timm"), "torch": str(torch.__version__)}


def constants(modules: Iterable[ModuleType]) -> dict[str, Any]:
    """Collect the constants of modules by "module.NAME", if they convert to plain JSON."""
    found = {}
    for module in modules:
        for name, value in vars(module).items():
            if name.isupper():
                try:
                    found[f"{module.__name__.rpartition('.')[2]}.{name}"] = json.loads(
                        json.dumps(value, default=_plain)
                    )
                except TypeError:  # a function, or a table of them
                    continue
    return found


def _plain(value: Any) -> Any:
    """Convert an array or a dataclass for JSON."""
    return value.tolist() if isinstance(value, np.ndarray) else asdict(value)
