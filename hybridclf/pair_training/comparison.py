"""Comparison of a pretrained network's features with a new network as tier 1: each is tried for a short time."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest

from ..ports import FeatureModel
from ..utils.progress import progress_bar
from .features import features_of, seconds_per_image
from .linear_head import fit_linear_head
from .networks import PROPOSERS, new_trainable
from .recipe import proposer_job
from .timing import steps_in
from .training_data import TrainingData

__all__ = ["SHARE", "Comparison", "compare"]

SHARE = 0.05
"""Share of a training's time that each kind is tried for."""

MOST_FEATURES = 0.75
"""Most of the time that the features of all images may take."""

ASKED = 200
"""Most held-out images that both are asked about."""

ASKED_SHARE = 0.25
"""Most of the features that may be those of held-out images."""

SIGNIFICANT = 0.05
"""Level of the sign test by which a new network must be better: features are what suits most photographs."""


class Comparison(NamedTuple):
    """Outcome of a comparison.

    Attributes
    ----------
    new_is_better : bool
        A new network is the better tier 1.
    reason : str
        Reason, for the user.
    """

    new_is_better: bool
    reason: str


def compare(model: FeatureModel, data: TrainingData, left: float, progress: bool) -> Comparison:
    """Choose between a pretrained network's features and a new network by trying both, for about as long each.

    A new network is taken if it is significantly better on held-out images, or if features would take too much of the
    time. These images are among those that the fusion will be fitted on, never those that the result is measured on.

    Parameters
    ----------
    model : FeatureModel
        Pretrained network.
    data : TrainingData
        Images.
    left : float
        Seconds left for the training.
    progress : bool
        Show progress bars.
    """
    speed = seconds_per_image(model, data.photos)
    if speed * len(data.photos) > MOST_FEATURES * left:
        return Comparison(True, f"features would take {speed * len(data.photos) / 60:.1f} of {left / 60:.1f} minutes")
    n = int(SHARE * left / speed)
    asked = data.fit_on[: min(ASKED, int(ASKED_SHARE * n))]
    some = _some(data, n - len(asked))
    if not len(asked) or len(some) < len(data.classes):
        return Comparison(False, "too little time or too few held-out images to try a new network beside it")
    y, truth = data.y.cpu().numpy()[some], data.held_out_y.cpu().numpy()[asked]
    head = fit_linear_head(features_of(model, data.photos[some], progress), y, data.groups[some], data.settings.seed)
    logits = features_of(model, data.held_out_photos[asked], False) @ head.weight.T + head.bias
    answers, n_steps = _new_network(data, asked, SHARE * left, progress)
    features, new = logits.argmax(1) == truth, answers == truth
    gained, lost = int((new & ~features).sum()), int((features & ~new).sum())
    better = gained > lost and binomtest(gained, gained + lost, alternative="greater").pvalue < SIGNIFICANT
    return Comparison(
        better,
        f"of {len(asked)} held-out images a linear classifier on the features of {len(some)} is right for "
        f"{features.mean():.0%}, a new network after {n_steps} steps for {new.mean():.0%}",
    )


def _some(data: TrainingData, n: int) -> np.ndarray:
    """Positions of at most n training images in random order, one of each class first."""
    order = np.random.default_rng(data.settings.seed).permutation(len(data.y))
    first = np.unique(data.y.cpu().numpy()[order], return_index=True)[1]
    return np.concatenate([order[first], np.delete(order, first)])[:n]


def _new_network(data: TrainingData, asked: np.ndarray, seconds: float, progress: bool) -> tuple[np.ndarray, int]:
    """Train the smallest new network, and return its answers `[m]` to held-out images with its number of steps."""
    network = new_trainable(data, PROPOSERS[0]).network
    trainer = proposer_job(replace(data, compiles=False), network).trainer
    trainer.n_steps = steps_in(trainer, seconds)
    with progress_bar(total=trainer.n_steps, desc="try a new network", unit="step", show=progress) as bar:
        for _ in trainer.run():
            bar.update()
    with torch.inference_mode():
        logits = trainer.average(data.encode(data.held_out[torch.from_numpy(asked)]))
    return logits.argmax(1).cpu().numpy(), trainer.step
