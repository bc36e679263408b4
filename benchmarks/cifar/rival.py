"""The honest rival of a denoiser as tier 2: a bigger classifier, trained on the same images.

It is cascaded by the same rule: the images that the hybrid re-ranks get its answer, fused with tier 1's by two weights
that are fitted on the images that the hybrid's fusion was fitted on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from hybridclf import plugins
from hybridclf.pair_training.networks import new_trainable
from hybridclf.pair_training.recipe import classifier_job
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.training_data import TrainingData

NAME = "timm:resnet18"
"""At 64 pixels about as many FLOPs as one row of the pair's U-Net."""


def trained(task: TrainingData, folder: Path, minutes: float) -> Any:
    """The rival as a proposer, from a folder that is the task's own; its training goes on where it stopped."""
    if not (folder / "model").exists():
        resumes = (folder / "training" / "log.json").exists()
        run = TrainingRun.resume(folder, {}) if resumes else TrainingRun.start(folder, {"minutes": minutes})
        trainable = new_trainable(task, NAME)
        part = classifier_job("rival", minutes, task, trainable.network)
        network = run.train(part.name, part.trainer, part.seconds, part.held_out, True)
        trainable.save(network, folder / "model.part")
        (folder / "model.part").rename(folder / "model")
    return plugins.load("proposer", f"timm:local-dir:{folder / 'model'}").fit(None, task.classes.tolist())


def seen(folder: Path, part: str) -> int:
    """Images that a network saw in the training in a folder."""
    log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    return int(log["n_steps"][part] * log["configs"][part]["batch_size"])


class Cascade:
    """Two weights, of tier 1's log-probabilities and of the rival's.

    Parameters
    ----------
    first, second : float array `[n, C]`
        Log-probabilities of the two on the images to fit on.
    y : int array `[n]`
        Class numbers.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, y: np.ndarray) -> None:
        def loss(weights: np.ndarray) -> float:
            fused = log_softmax(weights[0] * first + weights[1] * second, axis=1)
            return -float(fused[np.arange(len(y)), y].mean())

        self.weights = minimize(loss, np.ones(2), method="Nelder-Mead").x

    def __call__(self, prior: np.ndarray, first: np.ndarray, second: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Posterior `[n, C]`: the fused one where the rival is asked, tier 1's calibrated one elsewhere."""
        fused = np.exp(log_softmax(self.weights[0] * first + self.weights[1] * second, axis=1))
        return np.where(asked[:, None], fused, prior)
