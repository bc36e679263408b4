"""Atomic files of a training: checkpoints as safetensors, logs as JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..atomic import write_whole
from ..errors import TrainingError

__all__ = ["load_tensors", "save_json", "save_tensors", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing into a `TrainingError` that says what to do, in a `with` block.

    Raises
    ------
    TrainingError
        For any error of the file system or of safetensors.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors' errors have no strerror
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(
            f"{path} cannot be written: {reason}; make room or get the right to write there, then resume the training"
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors.

    Raises
    ------
    TrainingError
        If the file cannot be written; an earlier one of this name then stays.
    """
    _replace(path, safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()}))


def save_json(path: Path, value: Any) -> None:
    """Write plain values as JSON.

    Raises
    ------
    TrainingError
        If the file cannot be written; an earlier one of this name then stays.
    """
    _replace(path, (json.dumps(value, indent=1) + "\n").encode())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors from a `save_tensors` file.

    Raises
    ------
    TrainingError
        If the file is damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; train again into another folder") from error


def _replace(path: Path, content: bytes) -> None:
    with writing(path):
        write_whole(path, path.with_name(f"{path.name}.part"), lambda file: file.write(content))
