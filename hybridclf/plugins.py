""" "open_clip:RN50/openai" → object: spec strings, answered by adapters that are found through entry points.

An adapter registers a function under the group `hybridclf.proposers` or `hybridclf.denoisers`; the entry point's name
is the part of the spec before the colon, and the function gets the part after it. Under `hybridclf.trainables` it
registers what makes a new network for tier 1: `hybridclf.ports.Trainable` says how.
"""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from .errors import SavedModelError, UnknownSpecError

__all__ = ["Kind", "adapters", "load", "portable", "resolved"]

Kind = Literal["proposer", "denoiser", "trainable"]


def adapters(kind: Kind) -> dict[str, EntryPoint]:
    """Installed adapters of that kind, by name."""
    return {entry.name: entry for entry in entry_points(group=f"hybridclf.{kind}s")}


def load(kind: Kind, spec: str, **options: Any) -> Any:
    """The proposer, denoiser or new network that a spec string names.

    Parameters
    ----------
    kind : "proposer", "denoiser" or "trainable"
        What is wanted.
    spec : str
        "ADAPTER:NAME", for example "sklearn:LogisticRegression".
    **options
        Passed on to the adapter.

    Raises
    ------
    UnknownSpecError
        If the string is not of that form or no adapter has that name.
    """
    name, colon, rest = spec.partition(":")
    known = adapters(kind)
    if not colon or not rest or name not in known:
        listed = ", ".join(f'"{n}:…"' for n in sorted(known)) or "none is installed"
        raise UnknownSpecError(f'{spec!r} is not a known {kind}; type "ADAPTER:NAME" with one of: {listed}')
    return known[name].load()(rest, **options)


def portable(spec: str, folder: Path) -> str:
    """A spec string as it is written into a saved model's folder: a path inside the folder becomes "./…".

    "./…" as the user typed it starts at the working folder, which is nobody's business later; it is made absolute.
    """
    head, colon, path = spec.rpartition(":")
    if path.startswith("./"):
        spec = f"{head}{colon}{Path(path).resolve()}"
    head, inside, path = spec.partition(f":{folder.resolve()}/")
    return f"{head}:./{path}" if inside else spec


def resolved(spec: str, folder: Path) -> str:
    """A spec string as it is read from a saved model's folder: "./…" after its last colon starts there.

    Raises
    ------
    SavedModelError
        If such a path leaves the folder, or leads to nothing.
    """
    head, colon, path = spec.rpartition(":")
    if not path.startswith("./"):
        return spec
    part = (folder / path).resolve()
    if not part.is_relative_to(folder.resolve()):
        raise SavedModelError(f"{spec!r} in {folder} leads out of that folder, where nothing of a saved model may lie")
    if not part.exists():
        raise SavedModelError(f"{folder} is incomplete: it has no {path[2:]}, which {spec!r} names; copy all of it")
    return f"{head}{colon}{part}"
