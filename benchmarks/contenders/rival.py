"""The honest rival of a denoiser as tier 2: a second network of tier 1's kind, trained on the same images.

It is cascaded: the images that it is asked about get its answer, fused with tier 1's by two weights that are fitted on
the images that the hybrid's fusion was fitted on. The others have tier 1's.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from hybridclf import plugins
from hybridclf.pair_training.networks import PROPOSERS
from hybridclf.pair_training.planning import new_proposer
from hybridclf.pair_training.recipe import PATIENCE, classifier_job
from hybridclf.pair_training.run import TrainingRun
from hybridclf.pair_training.training_data import TrainingData

__all__ = ["Cascade", "trained", "unsure"]

SURE = 0.95
"""Calibrated probability of tier 1 from which on it answers alone, as the hybrid's confidence."""


def trained(
    data: TrainingData, folder: Path, seconds: float, specs: Sequence[str] = PROPOSERS, n_steps: int | None = None
) -> Any:
    """Train a rival, or read it where an earlier run left it; an interrupted training goes on.

    Parameters
    ----------
    data : TrainingData
        Images of tier 1's training.
    folder : Path
        Folder of the rival.
    seconds : float
        Time of its training.
    specs : sequence of str
        Specs of networks, from the smallest on; the largest that the time allows is trained.
    n_steps : int, optional
        Steps of its training, if the time is not to decide them.

    Returns
    -------
    Proposer
        The network.
    """
    if not (folder / "model").exists():
        resumes = (folder / "training" / "log.json").exists()
        run = TrainingRun.resume(folder, {}) if resumes else TrainingRun.start(folder, {"seconds": seconds})
        # another seed: as a second opinion, the same network once more would be worth nothing
        data = replace(data, settings=replace(data.settings, seed=data.settings.seed + 1))
        specs = (run.log["spec"],) if "spec" in run.log else specs
        run.log["spec"], trainable = new_proposer(specs, data, seconds)
        if n_steps is not None:
            run.log["n_steps"].setdefault("rival", n_steps)
        job = classifier_job("rival", seconds / 60, data, trainable.network)
        network = run.train(job.name, job.trainer, seconds, job.held_out, True, job.loss, PATIENCE)
        trainable.save(network, folder / "model.part")
        (folder / "model.part").rename(folder / "model")
    return plugins.load("proposer", f"timm:local-dir:{folder / 'model'}").fit(None, data.classes.tolist())


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


def unsure(prior: np.ndarray) -> np.ndarray:
    """Mask `[n]` of the images that a rival is asked about, by tier 1's calibrated posterior `[n, C]` alone.

    So it is asked whatever the denoiser is worth, even where the hybrid's tier 2 is off.
    """
    return prior.max(axis=1) < SURE
