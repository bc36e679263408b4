""" "open_clip:RN50/openai" → object: spec strings, answered by adapters that are found through entry points.

An adapter registers a function under the group `hybridclf.proposers`, `hybridclf.denoisers` or `hybridclf.engines`; the
entry point's name is the part of the spec before the colon, and the function gets the part after it. If its signature
has them, it also gets `prompts`, `device` and `precision`, as `HybridClassifier` was given them; what it then loads may
say by `takes_prompts = False` that it goes by class all the same. The docstring of its module should say in its first
paragraph what its spec strings look like: `hybridclf models` prints it. Under `hybridclf.trainables` it registers what
makes a new network for tier 1: `hybridclf.ports.Trainable` says how.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from .errors import MissingDependencyError, SavedModelError, UnknownSpecError

__all__ = ["Kind", "adapters", "load", "offer", "portable", "resolved", "takes"]

Kind = Literal["proposer", "denoiser", "trainable", "engine"]


def adapters(kind: Kind) -> dict[str, EntryPoint]:
    """Installed adapters of that kind, by name."""
    return {entry.name: entry for entry in entry_points(group=f"hybridclf.{kind}s")}


def load(kind: Kind, spec: str, **options: Any) -> Any:
    """The proposer, denoiser, new network or engine that a spec string names.

    Parameters
    ----------
    kind : "proposer", "denoiser", "trainable" or "engine"
        What is wanted.
    spec : str
        "ADAPTER:NAME", for example "sklearn:LogisticRegression".
    **options
        Passed on to the adapter.

    Raises
    ------
    UnknownSpecError
        If the string is not of that form or no adapter has that name.
    MissingDependencyError
        If a package that the adapter needs is not installed.
    """
    loader, rest = _loader(kind, spec)
    with _importing(spec):
        return loader(rest, **options)


def offer(kind: Kind, spec: str, options: Mapping[str, Any]) -> Any:
    """The same as `load`, with those of the options that are not None and that the adapter takes."""
    taken = takes(kind, spec)
    return load(kind, spec, **{name: value for name, value in options.items() if value is not None and name in taken})


def takes(kind: Kind, spec: str) -> frozenset[str]:
    """Names of the options that the adapter of a spec string takes, by the signature of its function."""
    return frozenset(inspect.signature(_loader(kind, spec)[0]).parameters)


def portable(spec: str, folder: Path) -> str:
    """A spec string as it is written into a saved model's folder: a path inside the folder becomes "./…".

    A path as the user typed it starts at the working folder, which is nobody's business later; it is made absolute.

    Raises
    ------
    SavedModelError
        If a ".." is left in it, with which it would not be loaded.
    """
    head, colon, path = spec.rpartition(":")
    if _is_path(head, path):
        spec = f"{head}{colon}{Path(path).resolve()}"
    head, inside, path = spec.partition(f":{folder.resolve()}/")
    return _without_parents(f"{head}:./{path}" if inside else spec, folder)


def resolved(spec: str, folder: Path) -> str:
    """A spec string as it is read from a saved model's folder: "./…" after its last colon starts there.

    Raises
    ------
    SavedModelError
        If such a path leaves the folder, or leads to nothing; if there is a ".." anywhere in the spec.
    """
    head, colon, path = _without_parents(spec, folder).rpartition(":")
    if not path.startswith("./"):
        return spec
    part = (folder / path).resolve()
    if not part.is_relative_to(folder.resolve()):
        raise _leads_out(spec, folder)
    if not part.exists():
        raise SavedModelError(f"{folder} is incomplete: it has no {path[2:]}, which {spec!r} names; copy all of it")
    return f"{head}{colon}{part}"


def _is_path(head: str, path: str) -> bool:
    """Whether a spec's last part is a path: it says so, or it has a "/" and is a folder here, as adapters look first.

    A single name such as "resnet50" is a model's, even beside a folder of that name, and so is one on a hub.
    """
    if head.endswith(":local-dir") or path.startswith(("/", "./", "../")):
        return True
    return ":" not in head and "/" in path and Path(path).is_dir()


def _without_parents(spec: str, folder: Path) -> str:
    """The spec, checked: no ".." in it, whatever its adapter would take for a path."""
    if ".." in re.split(r"[:/\\]", spec):
        raise _leads_out(spec, folder)
    return spec


def _leads_out(spec: str, folder: Path) -> SavedModelError:
    return SavedModelError(
        f"{spec!r} in {folder} leads out of that folder, where nothing of a saved model may lie; move that part into "
        "the folder and name it './…', or give its whole path from '/' on"
    )


def _loader(kind: Kind, spec: str) -> tuple[Callable[..., Any], str]:
    """The adapter's function, and the part of the spec that it gets."""
    name, colon, rest = spec.partition(":")
    known = adapters(kind)
    if not colon or not rest or name not in known:
        listed = ", ".join(f'"{n}:…"' for n in sorted(known)) or "none is installed"
        raise UnknownSpecError(f'{spec!r} is not a known {kind}; type "ADAPTER:NAME" with one of: {listed}')
    with _importing(spec):
        return known[name].load(), rest


@contextmanager
def _importing(spec: str) -> Iterator[None]:
    """Say which spec it is that a missing package is needed for."""
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{spec!r} needs a module that cannot be imported: {error}; install the package that it is in"
        ) from error
