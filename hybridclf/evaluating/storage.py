"""A recording in a folder: a manifest that says what it is of, and chunks as safetensors, each whole or not there."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from .. import __version__
from ..atomic import make_folder, write_whole
from ..errors import InvalidInputError
from ..utils.manifests import in_words, read_manifest

__all__ = ["CHUNK", "Arrays", "RecordingFolder", "digest_of"]

CHUNK = 32
"""Images in a chunk: what an interruption costs at most."""

MANIFEST = "manifest.json"

ANOTHER = "give another folder: --out ANOTHER on the command line"
"""Way out where a folder holds another recording."""

TOLERANCE = 1e-3
"""Relative difference up to which answers are one model's: another device rounds differently."""


Arrays = dict[str, np.ndarray]
"""Content of a chunk, by name."""


def digest_of(values: Any) -> str:
    """A short text that differs where an array, or a list of PIL images, does."""
    digest = hashlib.blake2b(digest_size=8)
    for value in [values] if isinstance(values, np.ndarray) else values:
        array = np.ascontiguousarray(value)
        digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()


class RecordingFolder:
    """The folder of one recording.

    Parameters
    ----------
    folder : path
        New, empty, or that of the same recording.
    description : mapping
        What is recorded, as plain JSON.

    Raises
    ------
    InvalidInputError
        If it holds something else; the error says what differs.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = {"format": "hybridclf recording", "hybridclf": __version__} | dict(description)
        path = folder / MANIFEST
        if path.exists():
            if changes := in_words(read_manifest(path), wanted):
                raise InvalidInputError(
                    f"{folder} holds the recording of {changes}. Repeat the command that made it, or {ANOTHER}"
                )
        elif folder.exists() and any(path.suffix != ".part" for path in folder.iterdir()):
            raise InvalidInputError(f"{folder} is not empty and holds no recording; give a new folder")
        else:
            self._write(path, (json.dumps(wanted, indent=1) + "\n").encode())

    def load(self, number: int) -> Arrays | None:
        """A chunk; None if it is not there, or damaged."""
        try:
            return load_file(self._path(number))
        except (OSError, SafetensorError):
            return None

    def save(self, number: int, chunk: Arrays) -> None:
        """Write a chunk.

        Raises
        ------
        InvalidInputError
            If the disk refuses; the chunks before are kept.
        """
        self._write(self._path(number), save({name: np.ascontiguousarray(array) for name, array in chunk.items()}))

    def check_model(self, answers: Mapping[str, Iterable[tuple[np.ndarray, np.ndarray]]]) -> None:
        """Check that the tiers answer as those did that were recorded.

        Parameters
        ----------
        answers : dict of str to pairs of arrays
            By tier, what was recorded of the first item and what it says now.

        Raises
        ------
        InvalidInputError
            If one of them says something else.
        """
        other = [name for name, pairs in answers.items() if not all(map(_alike, pairs))]
        if other:
            raise InvalidInputError(
                f"{self.folder} holds the recording of another model: {' and '.join(other)} answered the first item "
                f"otherwise. Evaluate the model that was recorded, or {ANOTHER}"
            )

    def _path(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06d}.safetensors"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            make_folder(self.folder)
            write_whole(path, path.with_name(f"{path.name}.part"), lambda file: file.write(content))
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror or error}; what is recorded so far is kept: make room or "
                "get the right to write there, then repeat the command to go on"
            ) from error


def _alike(pair: tuple[np.ndarray, np.ndarray]) -> bool:
    then, now = pair
    return then.shape == now.shape and np.allclose(then, now, TOLERANCE, TOLERANCE, equal_nan=True)
