"""Output of a batch job: a manifest of what decides it, and Parquet parts written atomically."""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..atomic import in_utf8
from ..errors import InvalidInputError
from ..utils.manifests import in_words, parse_manifest
from .answers import FileAnswer
from .checksums import SEAL, is_intact, seal
from .folders import GO_ON, LOCK, Folder
from .inputs import Part

__all__ = [
    "ATTEMPTS",
    "MANIFEST",
    "attempt",
    "claim",
    "exclusive",
    "fingerprint",
    "is_done",
    "missing_parts",
    "part_name",
    "remove_leftovers",
    "totals",
    "write_part",
]

MANIFEST = "_manifest.json"
"""File name of the manifest; readers of Parquet folders skip names that begin with an underscore or a dot."""

READERS = 8
"""Parts read at a time."""

PRECISION = b"precision"
"""Key of a part's metadata for the type that tier 2 computed in: the manifest is of no one machine, but a part is."""

NAMED = 3
"""Errors that a summary names."""

ATTEMPTS = 3
"""Workers that may die on a part before the run ends."""


def fingerprint(folder: str | Path) -> dict[str, str]:
    """Hash each file of a saved model by SHA-256; keys are paths within the folder. Hidden files are none of it."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*")) if path.is_file()}
    return {name: _sha256(path) for name, path in files.items() if not re.search(r"(^|/)\.", name)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the manifest -----------------------------------------------------------------------------------------------------


def claim(output: Folder, manifest: Mapping[str, Any]) -> None:
    """Make a folder the output that the manifest describes, or check that it is; only in a block of `exclusive`.

    Raises
    ------
    InvalidInputError
        If the folder holds something else, or cannot be written. For another batch the message lists the differences.
    """
    with _usable(output):
        names = output.names()
        then = output.read(MANIFEST) if MANIFEST in names else None
    # the manifest is written first, so a folder without one was not begun by a batch
    if then is not None:
        if changes := in_words(parse_manifest(then, f"{output}/{MANIFEST}"), manifest):
            raise InvalidInputError(
                f"{output} was begun with {changes}. Repeat the command that began it, or give another OUTPUT"
            )
        return
    if any(name != LOCK and not _is_leftover(name) for name in names):
        raise _foreign(output)
    with _usable(f"{output}/{MANIFEST}"):
        output.write(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


@contextmanager
def exclusive(output: Folder) -> Iterator[None]:
    """Make a folder unless it exists, and keep other runs from it in a `with` block.

    Raises
    ------
    InvalidInputError
        If another run is at work there, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(output.lock())
        except BlockingIOError as error:
            raise InvalidInputError(
                f"another run writes to {output}; wait for its end, or give another OUTPUT"
            ) from error
        except FileExistsError as error:  # no folder but a file
            raise _foreign(output) from error
        except OSError as error:
            raise _unusable(output, error) from error
        yield


def _foreign(output: Folder) -> InvalidInputError:
    return InvalidInputError(f"{output} exists and is no output of a batch; give a new or empty folder as OUTPUT")


# --- parts ------------------------------------------------------------------------------------------------------------


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def missing_parts(output: Folder, parts: Sequence[Part]) -> list[Part]:
    """List the parts that are not there with all of their rows, to the bit as they were written."""
    with _usable(output):
        names = set(output.names())
    found = [part for part in parts if part_name(part.number) in names]
    # several at a time, as a store takes a while for each
    with ThreadPool(READERS) as pool:
        whole = pool.map(partial(is_done, output), found)
    done = {part.number for part, is_whole in zip(found, whole, strict=True) if is_whole}
    return [part for part in parts if part.number not in done]


def is_done(output: Folder, part: Part) -> bool:
    """Tell whether a part exists with all of its rows, and is to the bit what was written."""
    return _content(output, part) is not None


def _content(output: Folder, part: Part) -> io.BytesIO | None:
    """Read the file of a part; None if it is missing, damaged or another part's."""
    try:
        content = output.read(part_name(part.number))
        is_whole = is_intact(content) and pq.read_metadata(io.BytesIO(content)).num_rows == len(part)
    except (OSError, pa.ArrowException):
        return None
    return io.BytesIO(content) if is_whole else None


@contextmanager
def attempt(output: Folder, part: Part, run: str) -> Iterator[None]:
    """Count the workers that die on a part, in a `with` block around the work on it.

    Parameters
    ----------
    output : Folder
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
    # A byte per attempt, written before the work and removed with the file after it: what is left counts the deaths.
    name = f".{part_name(part.number)}.{run}.tmp"
    with _usable(f"{output}/{name}"):
        deaths = len(output.read(name)) if name in output.names() else 0
    if deaths >= ATTEMPTS:
        raise InvalidInputError(
            f"{deaths} workers have died on {part_name(part.number)} ({_contents(part)}): one of its "
            "images crashes its reader, or there is too little memory; repeat the command with fewer workers, or in "
            "one process to see what happens"
        )
    with _usable(f"{output}/{name}"):
        output.write(name, b"." * (deaths + 1))
    try:
        yield
    finally:
        with _usable(f"{output}/{name}"):
            output.remove(name)


def _contents(part: Part) -> str:
    """Say which images a part has, for messages."""
    if part.rows is not None:
        return in_utf8(f"{part.files[0]}, rows {part.rows[0]} to {part.rows[-1]}")
    (first, _), *_, (last, _) = [*part.sources() * 2]
    return in_utf8(f"{first} to {last}")


def write_part(output: Folder, part: Part, answers: Sequence[FileAnswer], classes: np.ndarray, precision: str) -> None:
    """Write the answers of a part atomically, a row each, and the type that tier 2 computed them in."""
    table = pa.Table.from_pylist(
        [_row(row, answer) for (_, row), answer in zip(part.sources(), answers, strict=True)],
        _schema(classes, precision),
    )
    content = io.BytesIO()
    pq.write_table(table, content)
    with _usable(f"{output}/{part_name(part.number)}"):
        output.write(part_name(part.number), seal(content.getvalue()))


def _schema(classes: np.ndarray, precision: str) -> pa.Schema:
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
            "novelty": pa.float64(),
            "rejected": pa.bool_(),
            "error": pa.string(),
        },
        {PRECISION: precision, "content": SEAL},
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
        "novelty": answer.novelty,
        "rejected": answer.rejected,
        "error": answer.error and in_utf8(answer.error),
    }


class Totals(NamedTuple):
    """Totals of some parts.

    Attributes
    ----------
    images, errors, evaluations : int
        Rows, rows with an error, and evaluations.
    first_errors : list of str
        The first few errors, each behind its image.
    precisions : list of str
        The types that tier 2 computed in.
    """

    images: int
    errors: int
    evaluations: int
    first_errors: list[str]
    precisions: list[str]


def totals(output: Folder, parts: Sequence[Part]) -> Totals:
    """Add up all parts.

    Raises
    ------
    InvalidInputError
        If a part is missing or damaged.
    """
    with ThreadPool(READERS) as pool:
        figures = list(pool.imap(partial(_figures, output), parts))
    images, errors, evaluations, first, precisions = zip(*figures, strict=True)
    return Totals(
        sum(images),
        sum(errors),
        sum(evaluations),
        list(chain.from_iterable(first))[:NAMED],
        sorted(set(chain.from_iterable(precisions))),
    )


def _figures(output: Folder, part: Part) -> Totals:
    """Totals of a part."""
    if (content := _content(output, part)) is None:
        raise InvalidInputError(
            f"{output}/{part_name(part.number)} is missing or damaged; is OUTPUT one folder that all machines share?"
        )
    # without labels and posteriors, which are most of a part
    table = pq.read_table(content, columns=["path", "row", "evaluations", "error"])
    failed = table.filter(pc.is_valid(table["error"]))
    first = [
        ": ".join([row["path"], *([] if row["row"] is None else [f"row {row['row']}"]), row["error"]])
        for row in failed.slice(0, NAMED).to_pylist()
    ]
    precision = table.schema.metadata[PRECISION].decode()
    return Totals(len(table), len(failed), sum(filter(None, table["evaluations"].to_pylist())), first, [precision])


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _usable(place: object) -> Iterator[None]:
    """Turn a failure of the file system or store in a `with` block into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _unusable(place, error) from error


def _unusable(place: object, error: OSError) -> InvalidInputError:
    return InvalidInputError(f"{place} cannot be written: {error.strerror or error}; {GO_ON}")


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def remove_leftovers(output: Folder) -> None:
    """Remove the unfinished files of killed processes; no other process may be at work."""
    with _usable(output):
        for name in filter(_is_leftover, output.names()):
            output.remove(name)
