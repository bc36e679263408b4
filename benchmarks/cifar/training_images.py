"""Images of the embedded pair's training, split as they were."""

import json
from pathlib import Path

import numpy as np

from hybridclf.data.datasets import load_labelled
from hybridclf.data.holding_out import digests
from hybridclf.devices import as_device
from hybridclf.pair_training.settings import stored_settings
from hybridclf.pair_training.start_from import trained_on
from hybridclf.pair_training.training_data import TrainingData

__all__ = ["training_images"]


def training_images(source: Path, folder: Path, device: str = "auto") -> tuple[TrainingData, np.ndarray]:
    """Split images as a pair's training did.

    Parameters
    ----------
    source : Path
        All images, those that were held out, too.
    folder : Path
        The pair.
    device : str
        Device of the images.

    Returns
    -------
    data : TrainingData
        Images.
    fusion : int array
        Positions among the held-out images on which the pair's fusion was fitted.

    Raises
    ------
    SystemExit
        If images that the pair was trained on are missing.
    """
    log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    settings, seen = stored_settings(log), trained_on(folder)
    images = load_labelled(source, log["settings"].get("side", settings.image_size), progress=True)
    if missing := len(np.setdiff1d(seen, digests(images.pixels))):
        raise SystemExit(f"{source} lacks {missing:,} images that {folder} was trained on; give the file that has all")
    data = TrainingData.of(images, as_device(device), True, settings, seen=seen)
    others = np.setdiff1d(np.arange(len(data.held_out)), np.union1d(data.fit_on, data.measure_on))
    return data, np.concatenate([data.fit_on, others])[: log["usage"]["n_fusion"]]
