"""Spec strings such as "open_clip:RN50/openai", and the adapters that load them, found through entry points.

Options may follow, as in "diffusers:FOLDER?variant=fp16&resolution=256". They are the parameters of the adapter's
function that have a default, converted by their annotations; "%26" stands for an "&". They are part of the spec string,
are saved with it, and take precedence over the arguments of `HybridClassifier`.

An adapter registers a function under the group `hybridclf.proposers`, `hybridclf.denoisers` or `hybridclf.engines`. The
entry point's name is the part of the spec before the colon, and the function gets the part after it. It also gets the
`prompts`, `device` and `precision` of `HybridClassifier`, as far as its signature has them. The loaded object may
declare `takes_prompts = False` if it is conditioned on classes all the same. The first paragraph of the adapter
module's docstring should describe its spec strings, as `hybridclf models` prints it. Functions that make a new network
for tier 1 are registered under `hybridclf.trainables`; see `hybridclf.ports.Trainable`.
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

__all__ = ["Kind", "absolute", "adapters", "load", "offer", "portable", "resolved", "takes", "with_options"]

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
"""Parsers of an option's text, by type; the first type that fits is taken."""


def adapters(kind: Kind) -> dict[str, EntryPoint]:
    """List the installed adapters of a kind, by name."""
    return {entry.name: entry for entry in entry_points(group=f"hybridclf.{kind}s")}


def load(kind: Kind, spec: str, **options: Any) -> Any:
    """Load the proposer, denoiser, new network or engine of a spec string.

    Parameters
    ----------
    kind : "proposer", "denoiser", "trainable" or "engine"
        Kind of the adapter.
    spec : str
        "ADAPTER:NAME", for example "sklearn:LogisticRegression", or "ADAPTER:NAME?OPTION=VALUE&OPTION=VALUE".
    **options
        Arguments of the adapter; the string's own options take precedence.

    Returns
    -------
    object
        Return value of the adapter.

    Raises
    ------
    UnknownSpecError
        If the string is not of this form, or no adapter has this name.
    InvalidInputError
        For an option that the adapter does not have, or a value of another type.
    MissingDependencyError
        If a package of the adapter is not installed.
    """
    base, query = _split(spec)
    loader, rest = _loader(kind, base)
    options |= _read_options(spec, query, loader)
    with _importing(spec):
        return loader(rest, **options)


def offer(kind: Kind, spec: str, options: Mapping[str, Any]) -> Any:
    """Load as `load` does, with the options that are not None and that the adapter takes."""
    taken = takes(kind, spec)
    return load(kind, spec, **{name: value for name, value in options.items() if value is not None and name in taken})


def takes(kind: Kind, spec: str) -> frozenset[str]:
    """Names of the options that the adapter of a spec string takes, by its signature."""
    return frozenset(inspect.signature(_loader(kind, _split(spec)[0])[0]).parameters)


def _split(spec: str, folder: Path = Path()) -> tuple[str, str]:
    """Split a spec string at the "?" before its options, which are "" if there are none.

    A "?" is part of a path if such a file or folder exists; a relative path starts at `folder`.
    """
    marks = [match.start() for match in _OPTIONS.finditer(spec)]
    if not marks:
        return spec, ""
    path = spec.rfind(":", 0, marks[0]) + 1
    # the longest existing path wins: with a folder "a?b=1", the spec "x:a?b=1?c=2" has the one option c
    there = [end for end in (*marks, len(spec)) if os.path.exists(folder / spec[path:end])]
    end = there[-1] if there else marks[0]
    return spec[:end], spec[end + 1 :]


def absolute(spec: str) -> str:
    """Make relative paths in a spec string absolute, an option's too, as the working folder will be another one later.

    A name that may be a path or not, and an option's value, is one if such a file or folder exists.
    """
    base, query = _split(spec)
    head, colon, path = base.rpartition(":")
    model, slash, file = path.partition("/")
    if _is_path(head, path):
        base = f"{head}{colon}{_whole(path)}"
    elif slash and _is_file(file):  # MODEL/CHECKPOINT
        base = f"{head}{colon}{model}/{_whole(file)}"
    return _joined(base, "&".join(map(_absolute_option, query.split("&"))))


def _absolute_option(text: str) -> str:
    """Make an option "NAME=VALUE" absolute if its value is the path of a file or folder."""
    name, _, value = text.partition("=")
    is_path = ("/" in value and Path(unquote(value)).exists()) or _is_file(unquote(value))
    return f"{name}={_quoted(_whole(unquote(value)))}" if is_path else text


def _whole(text: str) -> Path:
    """Make a path absolute; a file that is a link, as in the hub's cache, keeps its name: its ending is its format."""
    path = Path(text)
    return path.parent.resolve() / path.name if path.is_file() else path.resolve()


def portable(spec: str, folder: Path) -> str:
    """Make a spec string portable for saving: a path inside the model's folder, an option's too, becomes "./…".

    Other relative paths become absolute.

    Raises
    ------
    SavedModelError
        If a ".." is left in it, with which it would not be loaded.
    """
    base, query = _split(absolute(spec))
    own = folder.resolve()
    query = query.replace(f"={_quoted(own)}/", "=./")
    return _without_parents(_joined(base.replace(f":{own}/", ":./", 1), query), folder)


def options_of(spec: str) -> set[str]:
    """Names of the options in a spec string.

    >>> sorted(options_of("diffusers:FOLDER?variant=fp16&lora=A"))
    ['lora', 'variant']
    """
    return {part.partition("=")[0] for part in _split(spec)[1].split("&") if part}


def with_options(spec: str, options: Mapping[str, Any]) -> str:
    """Add options to a spec string.

    >>> with_options("diffusers:FOLDER?variant=fp16", {"lora": "A&B"})
    'diffusers:FOLDER?variant=fp16&lora=A%26B'
    """
    base, query = _split(spec)
    return _joined(base, "&".join([*([query] if query else []), *(f"{k}={_quoted(v)}" for k, v in options.items())]))


def _quoted(value: Any) -> str:
    """Escape what ends an option in a spec string."""
    return str(value).replace("%", "%25").replace("&", "%26")


def resolved(spec: str, folder: Path) -> str:
    """Resolve a saved spec string: a path "./…" after its last colon, or of an option, starts at the model's folder.

    Raises
    ------
    SavedModelError
        If such a path leaves the folder or does not exist, or there is a ".." anywhere in the spec.
    """
    base, query = _split(_without_parents(spec, folder), folder)
    head, colon, path = base.rpartition(":")
    options = [part.partition("=") for part in query.split("&")]
    query = "&".join(
        f"{name}{eq}{_quoted(_found(spec, unquote(v), folder))}" if v[:2] == "./" else f"{name}{eq}{v}"
        for name, eq, v in options
    )
    return _joined(f"{head}{colon}{_found(spec, path, folder) if path[:2] == './' else path}", query)


def _found(spec: str, path: str, folder: Path) -> Path:
    """Resolve a path "./…" in a model's folder.

    Raises
    ------
    SavedModelError
        If it leads out of the folder or does not exist.
    """
    part = (folder / path).resolve()
    if not part.is_relative_to(folder.resolve()):
        raise _leads_out(spec, folder)
    if not part.exists():
        raise SavedModelError(f"{folder} is incomplete: it has no {path[2:]}, which {spec!r} names; copy all of it")
    return part


def _joined(base: str, query: str) -> str:
    return f"{base}?{query}" if query else base


def _is_path(head: str, path: str) -> bool:
    """Tell whether a spec's last part is a path, by its form or, with a "/" in it, because such a folder exists.

    A single name such as "resnet50" is a model's, even beside a folder of that name.
    """
    if head.endswith(":local-dir") or path.startswith(("/", "./", "../")):
        return True
    return ":" not in head and "/" in path and Path(path).is_dir()


def _is_file(text: str) -> bool:
    """Tell whether a text names a file that is here, with an ending, as a tag of weights has none."""
    return bool(Path(text).suffix) and Path(text).is_file()


def _without_parents(spec: str, folder: Path) -> str:
    """Check that a spec has no ".." in any of its parts, and return it."""
    # all parts, percent-decoded, since an adapter may take any of them for a path
    if ".." in re.split(r"[:/\\?&=]", unquote(spec)):
        raise _leads_out(spec, folder)
    return spec


def _leads_out(spec: str, folder: Path) -> SavedModelError:
    return SavedModelError(
        f"{spec!r} in {folder} leads out of that folder, where nothing of a saved model may lie; move that part into "
        "the folder and name it './…', or give its whole path from '/' on"
    )


def _loader(kind: Kind, spec: str) -> tuple[Callable[..., Any], str]:
    """Load the adapter's function, and cut off its part of the spec."""
    name, colon, rest = spec.partition(":")
    known = adapters(kind)
    if not colon or not rest or name not in known:
        listed = ", ".join(f'"{n}:…"' for n in sorted(known)) or "none is installed"
        raise UnknownSpecError(f'{spec!r} is not a known {kind}; type "ADAPTER:NAME" with one of: {listed}')
    with _importing(spec):
        return known[name].load(), rest


def _read_options(spec: str, query: str, loader: Callable[..., Any]) -> dict[str, Any]:
    """Parse the options in a spec string, by name, to the types of the adapter's signature."""
    known = _options_of(loader) if query else {}
    options: dict[str, Any] = {}
    # parse_qsl would turn a "+" into a space
    for name, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
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
    """Find the parameters of a function that a spec string may set, each with its accepted types or values."""
    options = {}
    for name, parameter in list(inspect.signature(loader, eval_str=True).parameters.items())[1:]:
        # without an annotation the default's type counts
        untyped = parameter.annotation is parameter.empty
        kinds = _kinds(type(parameter.default) if untyped else parameter.annotation)
        if kinds and parameter.default is not parameter.empty:
            options[name] = kinds
    return options


def _kinds(annotation: Any) -> list[Any]:
    """List the parsable types and the values that an annotation allows, unions and literals taken apart.

    `int | Literal["auto"]` gives `[int, "auto"]`.
    """
    if get_origin(annotation) in (Union, UnionType, Literal):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation] if isinstance(annotation, str) or annotation in _READERS else []


def _read(spec: str, name: str, text: str, kinds: list[Any]) -> Any:
    """Parse the value of an option by the first type that fits; a string among the kinds is an accepted value."""
    if text in kinds:
        return text
    for kind in [kind for kind in _READERS if kind in kinds]:
        with suppress(KeyError, ValueError):
            return _READERS[kind](text)
    accepted = " or ".join(kind.__name__ if isinstance(kind, type) else repr(kind) for kind in kinds)
    raise InvalidInputError(f"{spec!r}: the option {name!r} must be {accepted}, got {text!r}")


@contextmanager
def _importing(spec: str) -> Iterator[None]:
    """Name the spec in the error of a missing package, in a `with` block."""
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
