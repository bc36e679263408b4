"""Starting a training from an earlier pair: its weights, its settings, and the images that it has seen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from .. import plugins
from ..data.holding_out import pack, unpack
from ..errors import InvalidInputError, SavedModelError
from ..models import LateUNet
from ..persistence import read_description
from ..persistence.denoisers import restore_denoiser
from ..ports import Trainable
from .networks import same_unet
from .settings import PairSettings
from .training_data import TrainingData

__all__ = ["earlier_settings", "known_images", "seen_images", "take_over", "trained_on"]

FIRST_PROPOSER = "timm:small"
"""Tier 1 of pairs whose log does not name it."""


def trained_on(folder: Path) -> np.ndarray:
    """Read the digests, uint32, of all training images of a pair in a folder and of the pairs it started from.

    Raises
    ------
    SavedModelError
        If the log has none.
    """
    return _logged(folder, "seen")


def known_images(folder: Path) -> np.ndarray:
    """Read the digests of all images that a pair in a folder, or its fusion, was fitted on.

    Raises
    ------
    SavedModelError
        If the log has none.
    """
    return _logged(folder, "seen", "fitted_on")


def _logged(folder: Path, *more: str) -> np.ndarray:
    """Digests of a pair's training images, and of further entries of its log, which it may lack."""
    path = folder / "training" / "log.json"
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
        return np.unique(np.concatenate([unpack(log["trained_on"]), *(unpack(log.get(name, "")) for name in more)]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(
            f"{path} does not say which images it was trained on, that they may not be held out"
        ) from error


def seen_images(chosen: PairSettings, classes: list[str]) -> str | None:
    """Packed digests of the training images of the pair to start from, if there is one."""
    if chosen.start_from is None:
        return None
    folder = Path(chosen.start_from)
    with _a_pair_to_start_from(folder, chosen):
        known = read_description(folder)["classes"]["values"]
        if known != classes:
            raise InvalidInputError(
                f"{folder} has the classes {known}, not {classes}; give a pair for the same classes"
            )
        seen = trained_on(folder)
        if "hashed_shape" in json.loads((folder / "training" / "log.json").read_text(encoding="utf-8")):
            raise InvalidInputError(f"{folder} was calibrated or tuned, and not trained; give the pair that was")
        return pack(seen)


@contextmanager
def _a_pair_to_start_from(folder: Path, chosen: PairSettings) -> Iterator[None]:
    """Turn errors of reading a folder into an error that says what to give instead, in a `with` block."""
    try:
        yield
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, SavedModelError) as error:
        raise InvalidInputError(
            f"{folder} is no pair to start from: {error}; give the folder of one that was trained here, for images of "
            f"{chosen.image_size} pixels"
        ) from error


def take_over(folder: Path, data: TrainingData, trainable: Trainable | None) -> LateUNet:
    """Load the weights of a pair in a folder into a new network of tier 1, and return a new tier 2 with its weights.

    Raises
    ------
    InvalidInputError
        If the folder holds no pair of this image size, or its tier 1 is of another kind.
    """
    with _a_pair_to_start_from(folder, data.settings):
        saved = read_description(folder)
        if trainable is not None:
            trainable.load(folder / "proposer")
        earlier = restore_denoiser(folder, saved["denoiser"], torch.device("cpu")).network
        if earlier.config["shape"] != list(data.shape):
            raise SavedModelError(f"it is for images of {earlier.config['shape']}")
        # a network of the earlier size, whatever this device would train by default
        network = same_unet(data, earlier.config)
        network.load_state_dict(earlier.state_dict())
        return network


def earlier_settings(folder: Path) -> dict[str, Any]:
    """Settings and facts of the training that made a pair; a pretrained tier 1 is the pair's own, as it is now."""
    try:
        log: dict[str, Any] = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
        found = {"proposer": FIRST_PROPOSER} | log["settings"]
        if "head" in log:
            found["proposer"] = plugins.resolved(read_description(folder)["proposer"], folder)
    except (OSError, ValueError, KeyError, TypeError, SavedModelError):
        return {"proposer": FIRST_PROPOSER}  # what is wrong with the folder is said where its weights are read
    return found
