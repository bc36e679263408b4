""" "open_clip:RN50/openai" → object: spec strings, answered by adapters that are found through entry points.

Options of the adapter may follow, as in "diffusers:FOLDER?variant=fp16&resolution=256": parameters of its function that
have a default, read as their annotations say, with "%26" for an "&". They are a part of the spec string, are saved with
it, and come before what `HybridClassifier` was given for both tiers.

An adapter registers a function under the group `hybridclf.proposers`, `hybridclf.denoisers` or `hybridclf.engines`; the
entry point's name is the part of the spec before the colon, and the function gets the part after it. If its signature
has them, it also gets `prompts`, `device` and `precision`, as `HybridClassifier` was given them; what it then loads may
say by `takes_prompts = False` that it goes by class all the same. The docstring of its module should say in its first
paragraph what its spec strings look like: `hybridclf models` prints it. Under `hybridclf.trainables` it registers what
makes a new network for tier 1: `hybridclf.ports.Trainable` says how.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl, unquote

from .errors import InvalidInputError, MissingDependencyError, SavedModelError, UnknownSpecError

__all__ = ["Kind", "adapters", "load", "offer", "portable", "resolved", "takes"]

Kind = Literal["proposer", "denoiser", "trainable", "engine"]

_PACKAGES = {"PIL": "pillow", "open_clip": "open_clip_torch", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""Packages whose modules have another name."""

_OPTIONS = re.compile(r"\?(?=[A-Za-z_]\w*=)")

_READERS: dict[Any, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    Sequence[float]: lambda text: [float(value) for value in text.split(",")],
    Path: Path,
    str: str,
}
"""What is read from the text of an option, by type; the first that fits."""


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
        "ADAPTER:NAME", for example "sklearn:LogisticRegression", or "ADAPTER:NAME?OPTION=VALUE&OPTION=VALUE".
    **options
        Passed on to the adapter, but for those that the string has itself.

    Raises
    ------
    UnknownSpecError
        If the string is not of that form or no adapter has that name.
    InvalidInputError
        For an option in it that the adapter does not have, or a value that is none for it.
    MissingDependencyError
        If a package that the adapter needs is not installed.
    """
    base, query = _split(spec)
    loader, rest = _loader(kind, base)
    options |= _read_options(spec, query, loader)
    with _importing(spec):
        return loader(rest, **options)


def offer(kind: Kind, spec: str, options: Mapping[str, Any]) -> Any:
    """The same as `load`, with those of the options that are not None and that the adapter takes."""
    taken = takes(kind, spec)
    return load(kind, spec, **{name: value for name, value in options.items() if value is not None and name in taken})


def takes(kind: Kind, spec: str) -> frozenset[str]:
    """Names of the options that the adapter of a spec string takes, by the signature of its function."""
    return frozenset(inspect.signature(_loader(kind, _split(spec)[0])[0]).parameters)


def _split(spec: str, folder: Path = Path()) -> tuple[str, str]:
    """A spec string and the options after its "?", "" for none.

    The "?" is part of a path if something of that name is there; a path that is not absolute starts at `folder`.
    """
    marks = [match.start() for match in _OPTIONS.finditer(spec)]
    if not marks:
        return spec, ""
    path = spec.rfind(":", 0, marks[0]) + 1
    there = [end for end in (*marks, len(spec)) if os.path.exists(folder / spec[path:end])]
    end = there[-1] if there else marks[0]
    return spec[:end], spec[end + 1 :]


def portable(spec: str, folder: Path) -> str:
    """A spec string as it is written into a saved model's folder: a path inside the folder becomes "./…".

    A path as the user typed it starts at the working folder, which is nobody's business later; it is made absolute.

    Raises
    ------
    SavedModelError
        If a ".." is left in it, with which it would not be loaded.
    """
    spec, query = _split(spec)
    head, colon, path = spec.rpartition(":")
    if _is_path(head, path):
        spec = f"{head}{colon}{Path(path).resolve()}"
    head, inside, path = spec.partition(f":{folder.resolve()}/")
    return _without_parents(_with_options(f"{head}:./{path}" if inside else spec, query), folder)


def resolved(spec: str, folder: Path) -> str:
    """A spec string as it is read from a saved model's folder: "./…" after its last colon starts there.

    Raises
    ------
    SavedModelError
        If such a path leaves the folder, or leads to nothing; if there is a ".." anywhere in the spec.
    """
    base, query = _split(_without_parents(spec, folder), folder)
    head, colon, path = base.rpartition(":")
    if not path.startswith("./"):
        return spec
    part = (folder / path).resolve()
    if not part.is_relative_to(folder.resolve()):
        raise _leads_out(spec, folder)
    if not part.exists():
        raise SavedModelError(f"{folder} is incomplete: it has no {path[2:]}, which {spec!r} names; copy all of it")
    return _with_options(f"{head}{colon}{part}", query)


def _with_options(base: str, query: str) -> str:
    return f"{base}?{query}" if query else base


def _is_path(head: str, path: str) -> bool:
    """Whether a spec's last part is a path: it says so, or it has a "/" and is a folder here, as adapters look first.

    A single name such as "resnet50" is a model's, even beside a folder of that name, and so is one on a hub.
    """
    if head.endswith(":local-dir") or path.startswith(("/", "./", "../")):
        return True
    return ":" not in head and "/" in path and Path(path).is_dir()


def _without_parents(spec: str, folder: Path) -> str:
    """The spec, checked: no ".." in it, whatever its adapter would take for a path."""
    if ".." in re.split(r"[:/\\?&=]", unquote(spec)):
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


def _read_options(spec: str, query: str, loader: Callable[..., Any]) -> dict[str, Any]:
    """The options in a spec string, by name, each of the type that the adapter's function says."""
    known = _options_of(loader) if query else {}
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):  # a "+" is no space here
        if name not in known:
            accepted = ", ".join(known) or "none"
            raise InvalidInputError(
                f"{spec!r} has an option {name!r} that its adapter does not take; it takes {accepted}"
            )
        if name in options:
            raise InvalidInputError(f"{spec!r} has the option {name!r} twice; leave one out")
        if not text:
            raise InvalidInputError(f"{spec!r} gives no value for the option {name!r}; give one, or leave it out")
        options[name] = _read(spec, name, text, known[name])
    return options


def _options_of(loader: Callable[..., Any]) -> dict[str, list[Any]]:
    """The parameters of a function that may stand in a spec string, each with the types or values that are read."""
    options = {}
    for name, parameter in list(inspect.signature(loader, eval_str=True).parameters.items())[1:]:
        untyped = parameter.annotation is parameter.empty
        kinds = _kinds(type(parameter.default) if untyped else parameter.annotation)
        if kinds and parameter.default is not parameter.empty:
            options[name] = kinds
    return options


def _kinds(annotation: Any) -> list[Any]:
    """The readable types and the values that an annotation allows, unions and literals taken apart."""
    if get_origin(annotation) in (Union, UnionType, Literal):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation] if isinstance(annotation, str) or annotation in _READERS else []


def _read(spec: str, name: str, text: str, kinds: list[Any]) -> Any:
    """The value of an option: the first of the kinds that the text is; a string among them is a value itself."""
    if text in kinds:
        return text
    for kind in [kind for kind in _READERS if kind in kinds]:
        with suppress(KeyError, ValueError):
            return _READERS[kind](text)
    accepted = " or ".join(kind.__name__ if isinstance(kind, type) else repr(kind) for kind in kinds)
    raise InvalidInputError(f"{spec!r}: the option {name!r} must be {accepted}, got {text!r}")


@contextmanager
def _importing(spec: str) -> Iterator[None]:
    """Say which spec it is that a missing package is needed for."""
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{spec!r} needs a module that cannot be imported: {error}; type: pip install {_package_of(error)}"
        ) from error


def _package_of(error: ImportError) -> str:
    """The package to install, as far as an import says which module it did not find."""
    top = (error.name or "").partition(".")[0]
    return _PACKAGES.get(top, top) or "PACKAGE, the one that it is in"
