"""Starting a training from an earlier pair: its weights, its settings, and the images that it has seen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from .. import plugins
from ..data.holding_out import unpack
from ..errors import InvalidInputError, SavedModelError
from ..models import LateConditioned
from ..persistence import read_description
from ..persistence.denoisers import restore_denoiser
from ..ports import Trainable

__all__ = ["Start", "known_images", "trained_on"]

FIRST_PROPOSER = "timm:small"
"""Tier 1 of pairs whose log does not name it."""


@dataclass(frozen=True)
class Start:
    """Pair whose weights new networks start from; for other classes without tier 1's last layer and tier 2's table.

    Attributes
    ----------
    folder : Path
        Folder of the pair.
    classes : list of str
        Its classes.
    same_classes : bool
        They are those of the training. If so, it goes on with the pair's tier 1 by default, in the size that it saw.
    settings : dict
        Settings and facts of its training. A pretrained tier 1 is the pair's own, as it is now.
    seen : uint32 array
        Digests of the images that its weights were trained on, in the size that it saw.
    """

    folder: Path
    classes: list[str]
    same_classes: bool
    settings: dict[str, Any]
    seen: np.ndarray

    @classmethod
    def of(cls, folder: Path, classes: list[str], image_size: int) -> "Start":
        """Read the log of a pair in a folder, for a training with these classes and images of this side in pixels.

        Raises
        ------
        InvalidInputError
            If it is no pair to start from.
        """
        with _readable(folder, image_size):
            seen, saved = trained_on(folder), read_description(folder)
            log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
            if "hashed_shape" in log:
                raise SavedModelError("it is no result of hybridclf train, or was calibrated or tuned since")
            shape = saved["denoiser"]["network"]["shape"]
            if shape != [3, image_size, image_size]:
                raise SavedModelError(f"its images are {shape}")
            settings = {"proposer": FIRST_PROPOSER} | log["settings"]
            if "head" in log:
                settings["proposer"] = plugins.resolved(saved["proposer"], folder)
            own = saved["classes"]["values"]
            return cls(folder, own, own == classes, settings, seen)

    @property
    def proposer(self) -> str:
        """Spec string of its tier 1."""
        return str(self.settings["proposer"])

    @property
    def side(self) -> int:
        """Side in pixels of the images that it was trained on."""
        return int(self.settings.get("side", self.settings["image_size"]))

    @property
    def note(self) -> str:
        """Note for the user on other classes; "" for the same."""
        return "" if self.same_classes else f"tier 2 starts from that of {self.folder}, its weights by class are new"

    def load_proposer(self, trainable: Trainable) -> None:
        """Load the weights of its tier 1 into a new network of the same kind."""
        with _readable(self.folder, self.settings["image_size"]):
            trainable.load(self.folder / "proposer", self.same_classes)

    def denoiser(self) -> LateConditioned:
        """Load the network of its tier 2."""
        with _readable(self.folder, self.settings["image_size"]):
            saved = read_description(self.folder)["denoiser"]
            return restore_denoiser(self.folder, saved, torch.device("cpu")).network


@contextmanager
def _readable(folder: Path, image_size: int) -> Iterator[None]:
    """Turn errors of reading a folder into an error that says what to give instead, in a `with` block."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError, SavedModelError) as error:
        raise InvalidInputError(
            f"{folder} is no pair to start from: {error}; give the folder of one that hybridclf train made, for images "
            f"of {image_size} pixels (image_size, --image-size)"
        ) from error


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
