"""Install commands for the packages of an extra."""

import re
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["pip_install"]

_NEEDED_FOR = re.compile(r"extra == ['\"]([\w-]+)['\"]")


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
