"""How to install what an extra needs, in words that work wherever hybridclf itself came from."""

import re
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["pip_install"]

_NEEDED_FOR = re.compile(r"extra == ['\"]([\w-]+)['\"]")


def pip_install(*extras: str) -> str:
    """The command that installs the packages of these extras, by their own names: hybridclf may be on no index."""
    return " ".join(["pip install", *(f'"{p}"' if set(p) & set("<>[]!~;") else p for p in _packages(extras))])


def _packages(extras: tuple[str, ...]) -> list[str]:
    try:
        listed = [text.partition(";") for text in requires("hybridclf") or ()]
    except PackageNotFoundError:  # a source tree that is only on the path
        return [f".[{','.join(extras)}]"]
    return [name.strip() for name, _, marker in listed if {*_NEEDED_FOR.findall(marker)} & {*extras}]
