"""Optional packages: their import, and the command that installs those of an extra."""

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from ..errors import MissingDependencyError

__all__ = ["pip_install", "require"]

_NEEDED_FOR = re.compile(r"extra == ['\"]([\w-]+)['\"]")


def require(module: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Its name, such as "jinja2".
    purpose : str
        Beginning of the error, such as "the page needs".
    extra : str
        The extra that the package belongs to.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{purpose} {package}, which is not installed; type: {pip_install(extra)}"
        ) from error


def pip_install(*extras: str) -> str:
    """Command that installs the packages of some extras by their own names, as hybridclf itself may be on no index.

    A version bound is quoted, since a shell would redirect at its `>`: pip install "timm>=1.0".
    """
    return " ".join(["pip install", *(f'"{p}"' if set(p) & set("<>[]!~;") else p for p in _packages(extras))])


def _packages(extras: tuple[str, ...]) -> list[str]:
    """Requirements of some extras by the installed metadata, such as "timm>=1.0"."""
    try:
        listed = [text.partition(";") for text in requires("hybridclf") or ()]
    except PackageNotFoundError:  # a source tree that is only on the path
        return [f".[{','.join(extras)}]"]
    return [name.strip() for name, _, marker in listed if {*_NEEDED_FOR.findall(marker)} & {*extras}]
