"""Tier 1 of a pair: a new network, a linear classifier on a pretrained network's features, or scikit-learn's."""

import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from .. import plugins
from ..errors import HybridClfError, InvalidInputError, choices
from ..ports import FeatureModel, Trainable
from ..proposer import is_trained, rows_of
from .networks import PROPOSERS
from .pretrained_tier_1 import PretrainedTier1
from .recipe import PATIENCE, Job
from .run import TrainingRun
from .tier_1_time import MIN_PASSES, Share, time_share
from .time_budget import MIN_STEPS
from .timing import seconds_per_step
from .training_data import TrainingData

__all__ = [
    "AUTO",
    "NEW",
    "Chosen",
    "NetworkTier1",
    "SklearnTier1",
    "Tier1",
    "choose",
    "fitted_tier_1",
]

AUTO = "auto"
"""Spec of a pretrained network, if one can be had and a short trial finds a new one no better; else of a new one."""

PRETRAINED = "timm:tf_efficientnet_lite0.in1k"
"""Pretrained network of "auto": 4.7 M parameters, and 17 images a second on one core."""

NEW = "timm:convnet"
"""Spec of a new network, one of `PROPOSERS`: the largest that the time allows."""

FROM_SCRATCH = (NEW, *PROPOSERS, "timm:small")
"""New networks that may be asked for by name; the last one made the pairs of earlier versions."""

TRIED_SECONDS = 1.0
"""Seconds of a fit to some images by which the time of a scikit-learn classifier's fit is estimated."""

SMALLEST = 48
"""Side in pixels of images below which "auto" trains a new network: a pretrained one is for photographs."""


class Tier1(Protocol):
    """Tier 1 in training."""

    def shortest(self) -> float:
        """Estimate the seconds of its shortest worthwhile training, by a few steps."""
        ...

    def seconds_per_answer(self, shortest: float) -> float:
        """Estimate the seconds of its answer to an image, by those of its shortest training; 0 if they are few."""
        ...

    def share(self, both: float, shortest: float, fewest: float) -> Share:
        """Its share of so many seconds for both tiers, of which tier 2's shortest training takes `fewest`."""
        ...

    def train(self, run: TrainingRun, share: Share, progress: bool) -> None:
        """Train it, in about its share of the time if it can be cut short."""
        ...

    def save(self, folder: Path) -> Any:
        """Write it into a new folder, and return the parameter `proposer` of a classifier that has it."""
        ...


class Chosen(NamedTuple):
    """Choice of a tier 1.

    Attributes
    ----------
    specs : tuple of str
        Spec string, never "auto"; several of new networks, from the smallest on, of which the time decides.
    model : FeatureModel, BaseEstimator or None
        Pretrained network, or scikit-learn's classifier; None for a new network.
    note : str
        Reason of the choice, for the user.
    """

    specs: tuple[str, ...]
    model: Any
    note: str

    @property
    def side(self) -> int:
        """Side in pixels of the images that it sees; 0 for that of tier 2."""
        return int(self.model.feature_side) if isinstance(self.model, FeatureModel) else 0


def choose(spec: str, side: int, device: str, start: str | None = None) -> Chosen:
    """Load what tier 1 is made of.

    Parameters
    ----------
    spec : str
        "auto", one of `FROM_SCRATCH` for a new network, or the spec string of a proposer with features or of an
        estimator.
    side : int
        Typical side in pixels of the images; 0 for digits.
    device : str
        Device of a network.
    start : str, optional
        Spec string of tier 1 of the pair to start from; a new network is of its kind, unless another is asked for.

    Raises
    ------
    HybridClfError
        If it cannot be loaded.
    InvalidInputError
        If it is loaded and cannot be fitted to new classes.
    """
    if spec in FROM_SCRATCH:
        return _new(spec, start, "")
    if spec == AUTO:
        return _automatic(side, device, start)
    model = plugins.offer("proposer", spec, {"device": device, "features_only": True})
    if not isinstance(model, FeatureModel) and is_trained(model):
        raise InvalidInputError(
            f"{spec!r} has no features that a classifier of your classes could be fitted on; give 'timm:NAME' of a "
            f"pretrained network, 'sklearn:NAME', {choices(FROM_SCRATCH)} for a new network, or 'auto'"
        )
    if isinstance(model, FeatureModel):
        model.check_head()
        return Chosen(
            (spec,), model, f"tier 1 is a linear classifier on the features of {spec}, fine-tuned if time allows"
        )
    return Chosen((spec,), model, f"tier 1 is scikit-learn's {spec}")


def _automatic(side: int, device: str, start: str | None) -> Chosen:
    """Choose a pretrained network if the images are large enough for it and it can be had."""
    if side < SMALLEST:
        return _new(NEW, start, f": images of {side} pixels" if side else ": digits are no photographs")
    try:
        return choose(PRETRAINED, side, device)
    except HybridClfError as error:
        return _new(NEW, start, f": no pretrained one can be had ({error})")


def _new(spec: str, start: str | None, why: str) -> Chosen:
    """Choose a small network: that of the pair to start from, if no other was asked for, or one from scratch."""
    if start is not None and start in FROM_SCRATCH and spec in (NEW, start):
        return Chosen((start,), None, f"tier 1 is a small network that starts from an earlier pair's{why}")
    specs = PROPOSERS if spec == NEW else (spec,)
    return Chosen(specs, None, f"tier 1 is a small network, trained from scratch{why}")


class NetworkTier1:
    """New network, trained by cross-entropy.

    Parameters
    ----------
    trainable : Trainable
        The network's port.
    job : Job
        Its training.
    """

    def __init__(self, trainable: Trainable, job: Job) -> None:
        self.trainable, self.job = trainable, job

    def shortest(self) -> float:
        """Time of `MIN_STEPS` steps, and of `MIN_PASSES` passes over the images."""
        trainer = self.job.trainer
        return max(MIN_STEPS, MIN_PASSES * trainer.steps_per_pass) * seconds_per_step(trainer)

    def seconds_per_answer(self, shortest: float) -> float:
        """0: the network is small beside tier 2."""
        return 0.0

    def share(self, both: float, shortest: float, fewest: float) -> Share:
        """Its share of the time, of which the held-out loss decides."""
        return time_share(both, shortest, fewest)

    def train(self, run: TrainingRun, share: Share, progress: bool) -> None:
        """Train the network, or go on from its checkpoint."""
        job, spent = self.job, run.log.get("seconds", {}).get("tier_1", 0.0)
        self.network: nn.Module = run.train(
            job.name,
            job.trainer,
            share.planned - spent,
            job.held_out,
            progress,
            job.loss,
            PATIENCE,
            longest=share.longest - spent,
        )

    def save(self, folder: Path) -> str:
        """Write the network."""
        return self.trainable.save(self.network, folder)


class SklearnTier1:
    """scikit-learn classifier of the pixels.

    Parameters
    ----------
    estimator : BaseEstimator
        Unfitted classifier.
    data : TrainingData
        Images.
    """

    def __init__(self, estimator: BaseEstimator, data: TrainingData) -> None:
        self.estimator, self.data = estimator, data
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=data.settings.seed)

    def shortest(self) -> float:
        """Estimate the time of its fit by that to some images, in proportion; 0 if it cannot be fitted to so few.

        These become more until a fit takes a second, or has an eighth of them.
        """
        n = len(self.data.y)
        some, seconds = max(len(self.data.classes), n // 64), 0.0
        with warnings.catch_warnings(action="ignore"):
            while seconds < TRIED_SECONDS and 8 * some <= n:
                begin = time.perf_counter()
                try:
                    self._fit(clone(self.estimator), self.data.sample(some))
                except Exception:  # whatever a classifier raises: its own fit says it, if it is not for want of images
                    return 0.0
                seconds, some = time.perf_counter() - begin, 2 * some
        return seconds * n / (some / 2)

    def seconds_per_answer(self, shortest: float) -> float:
        """0: it is not fitted yet, and fast as a rule."""
        return 0.0

    def share(self, both: float, shortest: float, fewest: float) -> Share:
        """Tier 1's share of the time: the least that it takes."""
        return Share(shortest, shortest)

    def train(self, run: TrainingRun, share: Share, progress: bool) -> None:
        """Fit the classifier."""
        self._fit(self.estimator, slice(None))

    def _fit(self, estimator: BaseEstimator, images: np.ndarray | slice) -> None:
        """Fit a classifier to training images at some positions."""
        estimator.fit(rows_of(self.data.photos[images]), self.data.classes[self.data.y.cpu().numpy()[images]])

    def save(self, folder: Path) -> FrozenEstimator:
        """Return the classifier, which the saved model holds."""
        return FrozenEstimator(self.estimator)


def fitted_tier_1(model: FeatureModel | BaseEstimator, data: TrainingData) -> Tier1:
    """Make the tier 1 of a pretrained network or of a scikit-learn classifier."""
    return PretrainedTier1(model, data) if isinstance(model, FeatureModel) else SklearnTier1(model, data)
