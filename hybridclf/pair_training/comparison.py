"""Comparison of a pretrained network's features with a new network as tier 1: each is tried for a short time."""

import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ..metrics import accuracy, accuracy_difference
from ..ports import FeatureModel
from ..utils.progress import progress_bar
from .features import features_of, seconds_per_image
from .linear_head import fit_linear_head
from .networks import new_trainable
from .recipe import proposer_job
from .tier_1 import NEW, choose
from .time_budget import HeldOutCost, HeldOutUse
from .timing import steps_in
from .training_data import TrainingData

__all__ = ["Comparison", "compare"]

SHARE, LONGEST = 0.05, 60.0
"""Most of a training's time, and most seconds, that each kind is tried for."""

TOO_LONG = 0.95
"""Share of the time that the features of all images, and tier 1's answers to held-out ones, may not take."""

ROOM = 0.9
"""Share of the time that the features of all images and the comparison take at most."""

TRIED_ON, ASKED = 2000, 200
"""Most training images whose features are computed, and most held-out images that both are asked about."""

ASKED_SHARE = 0.25
"""Most of the features that may be those of held-out images."""

FEWEST = 10
"""Fewest held-out images of different groups by which a difference can be told from chance."""


class Comparison(NamedTuple):
    """Outcome of a comparison.

    Attributes
    ----------
    new_is_better : bool
        A new network is the better tier 1.
    reason : str
        Reason, for the user.
    asked : int array
        Positions of the held-out images that both were asked about, among the held-out ones.
    """

    new_is_better: bool
    reason: str
    asked: np.ndarray = np.empty(0, dtype=int)


def compare(model: FeatureModel, data: TrainingData, left: float, progress: bool) -> Comparison:
    """Choose between a pretrained network's features and a new network by trying both, for about as long each.

    The new network is taken if it is significantly better on held-out images, which are among those that the fusion
    will be fitted on, or if there is no time for the features of all images and its answers to held-out ones.

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
    whole = speed * len(data.photos)
    fewest = HeldOutUse.fewest(len(data.fit_on), len(data.measure_on), len(data.classes))
    answering = fewest.seconds(HeldOutCost(row=0.0, answer=speed, n_tempered=len(data.fit_on)))
    if whole + answering > TOO_LONG * left:
        needed = (whole + answering) / 60
        return Comparison(True, f"its features and answers would take {needed:.1f} of {left / 60:.1f} minutes")
    seconds = min(LONGEST, SHARE * left, (ROOM * left - whole - answering) / 2)
    n = int(max(0.0, seconds) / speed)
    asked = _asked(data, int(ASKED_SHARE * n))
    some = data.sample(min(TRIED_ON, n - len(asked)))
    if len(some) < len(data.classes) or ASKED_SHARE * n < FEWEST:
        return Comparison(False, "there is no time to try a new network beside it")
    if len(np.unique(data.held_out_groups[asked])) < FEWEST:
        return Comparison(False, "too few images are held out to compare a new network with it")
    if progress:
        print(f"Trying both kinds of tier 1 for about {seconds:.0f} seconds each.", file=sys.stderr)
    truth = data.held_out_y.cpu().numpy()[asked]
    features = _by_features(model, data, some, asked, progress) == truth
    answers, n_steps = _by_new_network(data, asked, seconds, progress)
    new, groups = answers == truth, data.held_out_groups[asked]
    of_features, of_new = (accuracy(right, groups=groups).percent() for right in (features, new))
    reason = (
        f"of {len(asked)} held-out images a linear classifier on the features of {len(some)} is right for "
        f"{of_features}, a new network after {n_steps} steps for {of_new}"
    )
    return Comparison(_is_better(new, features, groups), reason, asked)


def _asked(data: TrainingData, n: int) -> np.ndarray:
    """Positions of held-out images for the fusion, at most n and `ASKED`; all groups have one before any has two."""
    groups = data.held_out_groups[data.fit_on]
    # groups a, a, b, a have ranks 0, 1, 0, 2
    rank = np.array([np.count_nonzero(groups[:i] == group) for i, group in enumerate(groups)])
    return data.fit_on[np.argsort(rank, kind="stable")][: min(n, ASKED)]


def _by_features(
    model: FeatureModel, data: TrainingData, some: np.ndarray, asked: np.ndarray, progress: bool
) -> np.ndarray:
    """Class numbers `[m]` of held-out images by a linear classifier on the features of some training images."""
    features, y = features_of(model, data.photos[some], progress), data.y.cpu().numpy()[some]
    head = fit_linear_head(features, y, data.groups[some], data.settings.seed)
    logits = features_of(model, data.held_out_photos[asked], progress) @ head.weight.T + head.bias
    return logits.argmax(axis=1)


def _by_new_network(data: TrainingData, asked: np.ndarray, seconds: float, progress: bool) -> tuple[np.ndarray, int]:
    """Class numbers `[m]` of held-out images by a new network, trained on all images, and its steps.

    It is the smallest, or that of the pair to start from.
    """
    spec = choose(NEW, 0, "", None if data.start is None else data.start.proposer).specs[0]
    network = new_trainable(data, spec).network
    trainer = proposer_job(replace(data, compiles=False), network).trainer
    trainer.n_steps = steps_in(trainer, seconds)
    with progress_bar(total=trainer.n_steps, desc="try a new network", unit="step", show=progress) as bar:
        for _ in trainer.run():
            bar.update()
    with torch.inference_mode():
        logits = trainer.average(data.encode(data.held_out[torch.from_numpy(asked)]))
    return logits.argmax(1).cpu().numpy(), trainer.step


def _is_better(new: np.ndarray, features: np.ndarray, groups: np.ndarray) -> bool:
    """Tell whether one is right for more images than another, by a one-sided test at 5 %; in doubt it is not."""
    return accuracy_difference(new, features, confidence_level=0.9, groups=groups).low > 0
