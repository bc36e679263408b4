"""Output of a batch job: a manifest of what decides it, and Parquet parts written atomically."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import in_utf8, write_whole
from ..errors import InvalidInputError
from ..utils.manifests import differences, read_manifest
from .answers import FileAnswer
from .checksums import SEAL, is_intact, seal
from .inputs import Part

__all__ = [
    "ATTEMPTS",
    "MANIFEST",
    "attempt",
    "claim",
    "exclusive",
    "fingerprint",
    "is_done",
    "part_path",
    "remove_leftovers",
    "totals",
    "write_part",
]

MANIFEST = "_manifest.json"
"""File name of the manifest; readers of Parquet folders skip names that begin with an underscore or a dot."""

LOCK = "_lock"
"""File name of the lock of the run at work."""

ATTEMPTS = 3
"""Workers that may die on a part before the run ends."""


def fingerprint(folder: str | Path) -> dict[str, str]:
    """Hash each file of a saved model by SHA-256; keys are paths within the folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the manifest -----------------------------------------------------------------------------------------------------


def claim(output: Path, manifest: Mapping[str, Any]) -> None:
    """Make a folder the output that the manifest describes, or check that it is; only in a block of `exclusive`.

    Raises
    ------
    InvalidInputError
        If the folder holds something else, or cannot be written. For another batch the message lists the differences.
    """
    path = output / MANIFEST
    # the manifest is written first, so a folder without one was not begun by a batch
    if path.exists():
        changes = list(differences(read_manifest(path), manifest))
        if changes:
            raise InvalidInputError(
                f"{output} was begun with something else: {'; '.join(changes)}. "
                "Repeat the command that began it, or give another OUTPUT"
            )
        return
    if any(not _is_leftover(file) for file in output.iterdir() if file.name != LOCK):
        raise _foreign(output)
    text = json.dumps(manifest, indent=1) + "\n"
    _write(path, lambda file: file.write(text.encode()))


@contextmanager
def exclusive(output: Path) -> Iterator[None]:
    """Make a folder unless it exists, and keep other runs from it in a `with` block.

    The lock is a file of its own, which is not written anew like the manifest. The system forgets it when the process
    ends, however it does.

    Raises
    ------
    InvalidInputError
        If another run is at work there, or the folder cannot be written.
    """
    path = output / LOCK
    with _opened(path) as file:
        try:
            _lock(file)
        except BlockingIOError as error:
            raise InvalidInputError(
                f"another run writes to {output}; wait for its end, or give another OUTPUT"
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _opened(path: Path) -> IO[bytes]:
    """Open the lock's file; make it and its folder unless they exist."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except FileExistsError as error:  # no folder but a file
        raise _foreign(path.parent) from error
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _foreign(output: Path) -> InvalidInputError:
    return InvalidInputError(f"{output} exists and is no output of a batch; give a new or empty folder as OUTPUT")


def _lock(file: IO[bytes]) -> None:
    """Lock an open file, if its file system can; Windows' locks would keep others from reading it.

    Raises
    ------
    BlockingIOError
        If another run has the lock, or has ended and removed the file since it was opened here.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks
        return
    # a lock on a removed file would keep nobody out: the next run makes another
    if not os.fstat(file.fileno()).st_nlink:
        raise BlockingIOError


# --- parts ------------------------------------------------------------------------------------------------------------


def part_path(output: Path, number: int) -> Path:
    """Path of a part."""
    return output / f"part-{number:06d}.parquet"


def is_done(output: Path, part: Part) -> bool:
    """Tell whether a part exists with all of its rows, and is to the bit what was written."""
    return _content(output, part) is not None


def _content(output: Path, part: Part) -> io.BytesIO | None:
    """Read the file of a part; None if it is missing, damaged or another part's."""
    try:
        content = part_path(output, part.number).read_bytes()
        is_whole = is_intact(content) and pq.read_metadata(io.BytesIO(content)).num_rows == len(part)
    except (OSError, pa.ArrowException):
        return None
    return io.BytesIO(content) if is_whole else None


@contextmanager
def attempt(output: Path, part: Part, run: str) -> Iterator[None]:
    """Count the workers that die on a part, in a `with` block around the work on it.

    Parameters
    ----------
    output : Path
        Folder that all workers write to.
    part : Part
        Part to work on.
    run : str
        Unique name of the run; deaths in an earlier run do not count.

    Raises
    ------
    InvalidInputError
        If `ATTEMPTS` workers have died on the part before, or the folder cannot be written.
    """
    # A byte per attempt, appended before the work and removed with the file after it: what is left counts the deaths.
    path = _temporary(part_path(output, part.number), run)
    try:
        with path.open("ab") as file:
            # in append mode the position is the length, the number of attempts so far
            deaths = file.tell()
            file.write(b".")
    except OSError as error:
        raise _unwritable(path, error) from error
    if deaths >= ATTEMPTS:
        raise InvalidInputError(
            f"{deaths} workers have died on {part_path(output, part.number).name} ({_contents(part)}): one of its "
            "images crashes its reader, or there is too little memory; repeat the command with fewer workers, or in "
            "one process to see what happens"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _contents(part: Part) -> str:
    """Say which images a part has, for messages."""
    if part.rows is None:
        return in_utf8(f"{part.files[0]} to {part.files[-1]}")
    return in_utf8(f"{part.files[0]}, rows {part.rows[0]} to {part.rows[-1]}")


def write_part(output: Path, part: Part, answers: Sequence[FileAnswer], classes: np.ndarray) -> None:
    """Write the answers of a part atomically, a row each."""
    table = pa.Table.from_pylist(
        [_row(row, answer) for (_, row), answer in zip(part.sources(), answers, strict=True)], _schema(classes)
    )
    content = io.BytesIO()
    pq.write_table(table, content)
    _write(part_path(output, part.number), lambda file: file.write(seal(content.getvalue())))


def _schema(classes: np.ndarray) -> pa.Schema:
    """Schema of the parts; it is fixed, as a part whose rows all lack a value would get another type."""
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
        },
        {"content": SEAL},
    )


def _row(row: int | None, answer: FileAnswer) -> dict[str, Any]:
    posterior = answer.posterior or None
    return {
        "path": in_utf8(answer.path),
        "row": row,
        "label": answer.label,
        "top_labels": posterior and [entry.label for entry in posterior],
        "top_posterior": posterior and [entry.probability for entry in posterior],
        "evaluations": answer.evaluations,
        "stopped_by": answer.stopped_by,
        "error": answer.error and in_utf8(answer.error),
    }


def totals(output: Path, parts: Sequence[Part]) -> tuple[int, int, int]:
    """Count the rows, the rows with an error and the evaluations of all parts.

    Raises
    ------
    InvalidInputError
        If a part is missing or damaged.
    """
    rows = errors = evaluations = 0
    for part in parts:
        if (content := _content(output, part)) is None:
            raise InvalidInputError(
                f"{part_path(output, part.number)} is missing or damaged; is OUTPUT one folder that all machines share?"
            )
        # two columns alone: labels and posteriors are most of a part
        table = pq.read_table(content, columns=["evaluations", "error"])
        rows += len(table)
        errors += len(table) - table["error"].null_count
        evaluations += sum(filter(None, table["evaluations"].to_pylist()))
    return rows, errors, evaluations


# --- atomic files -----------------------------------------------------------------------------------------------------


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
    """Remove the unfinished files of killed processes; no other process may be at work."""
    for path in filter(_is_leftover, output.iterdir()):
        path.unlink(missing_ok=True)
