"""What a batch writes: a manifest that says what it is a batch of, and Parquet parts that appear whole."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import in_utf8, write_whole
from ..errors import InvalidInputError
from .answers import FileAnswer
from .inputs import Part

__all__ = [
    "ATTEMPTS",
    "MANIFEST",
    "attempt",
    "claim",
    "fingerprint",
    "is_done",
    "part_path",
    "remove_leftovers",
    "totals",
    "write_part",
]

MANIFEST = "_manifest.json"
"""Readers of Parquet folders pass over what begins with an underscore or a dot."""

ATTEMPTS = 3
"""Workers that a part may cost before the run ends."""


def fingerprint(folder: str | Path) -> dict[str, str]:
    """SHA-256 of each file of a saved model, by its path in the folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the manifest -----------------------------------------------------------------------------------------------------


def claim(output: Path, manifest: Mapping[str, Any]) -> None:
    """Make a folder the output of what the manifest describes, or check that it is.

    Raises
    ------
    InvalidInputError
        If it holds something else; for another batch the error lists what differs.
    """
    path = output / MANIFEST
    if path.exists():
        differences = list(_differences(_read_manifest(path), manifest))
        if differences:
            raise InvalidInputError(
                f"{output} was begun with something else: {'; '.join(differences)}. "
                "Repeat the command that began it, or give another OUTPUT"
            )
        return
    if output.exists() and (not output.is_dir() or any(p for p in output.iterdir() if not _is_leftover(p))):
        raise InvalidInputError(f"{output} exists and is no output of a batch; give a new or empty folder as OUTPUT")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(output, error) from error
    text = json.dumps(manifest, indent=1) + "\n"
    _write(path, lambda file: file.write(text.encode()))


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(manifest, dict):
            return manifest
    except (OSError, ValueError):
        pass
    raise InvalidInputError(f"{path} cannot be read as what a batch wrote; give another OUTPUT")


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two JSON values, one text each."""
    if isinstance(then, dict) and isinstance(now, Mapping):
        for key in then | dict(now):
            yield from _differences(then.get(key), now.get(key), f"{name}/{key}" if name else key)
    elif then != now:
        yield f"{name} {_short(then)} is now {_short(now)}"


def _short(value: Any) -> str:
    """A hash by its first digits."""
    text = "missing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


# --- parts ------------------------------------------------------------------------------------------------------------


def part_path(output: Path, number: int) -> Path:
    """Where a part's rows are."""
    return output / f"part-{number:06d}.parquet"


def is_done(output: Path, part: Part) -> bool:
    """Whether the part is there, whole and readable."""
    try:
        return _read_part(output, part).num_rows == len(part)
    except (OSError, pa.ArrowException):
        return False


def _read_part(output: Path, part: Part, columns: list[str] | None = None) -> pa.Table:
    """A part as it was written; pyarrow cannot open names that are no UTF-8 by itself."""
    with part_path(output, part.number).open("rb") as file:
        return pq.read_table(file, columns=columns)


@contextmanager
def attempt(output: Path, part: Part, run: str) -> Iterator[None]:
    """Work on a part, in a run where one whose worker dies is given to another; deaths are counted in the output.

    Parameters
    ----------
    output : Path
        The folder that all workers write to.
    part : Part
        What is worked on.
    run : str
        What no other run is called: the deaths of one that was killed do not count.

    Raises
    ------
    InvalidInputError
        If `ATTEMPTS` workers have died of it before, or the folder cannot be written.
    """
    path = _temporary(part_path(output, part.number), run)
    try:
        with path.open("ab") as file:
            deaths = file.tell()
            file.write(b".")
    except OSError as error:
        raise _unwritable(path, error) from error
    if deaths >= ATTEMPTS:
        raise InvalidInputError(
            f"{part_path(output, part.number).name} ({_contents(part)}) has cost {deaths} workers their lives: one of "
            "its images brings down what reads it, or there is too little memory; repeat the command with fewer "
            "workers, or in one process to see what happens"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _contents(part: Part) -> str:
    """Which images a part has."""
    if part.rows is None:
        return in_utf8(f"{part.files[0]} to {part.files[-1]}")
    return in_utf8(f"{part.files[0]}, rows {part.rows[0]} to {part.rows[-1]}")


def write_part(output: Path, part: Part, answers: Sequence[FileAnswer], classes: np.ndarray) -> None:
    """Write a part's answers, one row each, as a file that is either absent or whole."""
    table = pa.Table.from_pylist(
        [_row(row, answer) for (_, row), answer in zip(part.sources(), answers, strict=True)], _schema(classes)
    )
    _write(part_path(output, part.number), lambda file: pq.write_table(table, file))


def _schema(classes: np.ndarray) -> pa.Schema:
    label = pa.array(classes.tolist()).type
    return pa.schema(
        {
            "path": pa.string(),
            "row": pa.int64(),
            "label": label,
            "top_labels": pa.list_(label),
            "top_posterior": pa.list_(pa.float64()),
            "evaluations": pa.int64(),
            "stopped_by": pa.string(),
            "error": pa.string(),
        }
    )


def _row(row: int | None, answer: FileAnswer) -> dict[str, Any]:
    shares = answer.posterior or None
    return {
        "path": in_utf8(answer.path),
        "row": row,
        "label": answer.label,
        "top_labels": shares and [share.label for share in shares],
        "top_posterior": shares and [share.probability for share in shares],
        "evaluations": answer.evaluations,
        "stopped_by": answer.stopped_by,
        "error": answer.error and in_utf8(answer.error),
    }


def totals(output: Path, parts: Sequence[Part]) -> tuple[int, int, int]:
    """Rows, rows with an error and evaluations of all parts.

    Raises
    ------
    InvalidInputError
        If a part is missing.
    """
    rows = errors = evaluations = 0
    for part in parts:
        if not is_done(output, part):
            raise InvalidInputError(
                f"{part_path(output, part.number)} is missing; is OUTPUT one folder that all machines share?"
            )
        table = _read_part(output, part, ["evaluations", "error"])
        rows += len(table)
        errors += len(table) - table["error"].null_count
        evaluations += sum(filter(None, table["evaluations"].to_pylist()))
    return rows, errors, evaluations


# --- whole or not at all ----------------------------------------------------------------------------------------------


def _unwritable(path: Path, error: OSError) -> InvalidInputError:
    reason = error.strerror or str(error)
    return InvalidInputError(f"{path} cannot be written: {reason}; mend that, then repeat the command to go on")


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    try:
        write_whole(path, _temporary(path, uuid4().hex), write)
    except OSError as error:
        raise _unwritable(path, error) from error


def _temporary(path: Path, token: str) -> Path:
    return path.with_name(f".{path.name}.{token}.tmp")


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_leftovers(output: Path) -> None:
    """Remove what killed processes left half written; only once no other is at work."""
    for path in filter(_is_leftover, output.iterdir()):
        path.unlink(missing_ok=True)
