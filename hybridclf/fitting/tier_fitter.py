"""Training of both tiers on labelled items."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import _check_method_params, has_fit_parameter
from tqdm.std import tqdm

from ..data.arrays import Items
from ..errors import InvalidInputError
from ..models import LateConditionedDenoiser
from ..models.initialization import new_network
from ..models.late_conditioned import LateConditioned
from ..proposer import input_of, is_trained
from ..training.denoiser import TrainingConfig, TrainingLog, train
from ..training.trainer import Examples
from .splitting import hold_out

__all__ = ["FittedTiers", "Sample", "TierFitter"]

SMALL_IMAGE = 256
"""Largest number of values in an image for which an MLP is trained instead of a U-Net."""

NEIGHBOURS, SIGNIFICANT = 2000, 0.05
"""Most vectors among which nearest neighbours are looked for, to choose a scale, and level of the test."""

MIN_HELD_OUT = 10
"""Fewer images than this say nothing about when to stop; training then runs to its end."""


@dataclass(frozen=True)
class Sample:
    """Labelled items, to train both tiers on or to calibrate them with.

    Attributes
    ----------
    items : Items
        n items.
    y : int array `[n]`
        Class numbers.
    weight : float array `[n]` or None
        Weights, ≥ 0; None if all count alike.
    groups : array `[n]` or None
        Items of one group are held out together.
    """

    items: Items
    y: np.ndarray
    weight: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def select(self, index: np.ndarray) -> "Sample":
        """The items at these positions."""
        weight, groups = (None if v is None else v[index] for v in (self.weight, self.groups))
        return Sample(self.items.select(index), self.y[index], weight, groups)


class FittedTiers(NamedTuple):
    """Both tiers, and the log of the denoiser's training (None if it was given)."""

    proposer: Any
    denoiser: Any
    log: TrainingLog | None


@dataclass(frozen=True)
class TierFitter:
    """Fits both tiers to labelled items.

    Attributes
    ----------
    proposer : object
        Cloned and fitted unless it is trained already.
    denoiser : Denoiser or None
        Used as it is; None to train one.
    architecture : "auto", "mlp" or "unet"
        The network to train. "auto": an MLP for vectors and images of at most `SMALL_IMAGE` numbers.
    training : TrainingConfig
        Hyperparameters of its training.
    validation_fraction : float
        Share of the images held out for early stopping.
    device : torch.device
        Device for training and predictions.
    dtype : torch.dtype or None
        Type of its predictions; None: float64 for an MLP, float32 for a U-Net.
    proposer_params : mapping
        Further arguments of the proposer's `fit`; arrays of one value per item are cut to the items of a fold.
    """

    proposer: Any
    denoiser: Any
    architecture: str
    training: TrainingConfig
    validation_fraction: float
    device: torch.device
    dtype: torch.dtype | None
    proposer_params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """True unless both tiers are trained already."""
        return self.denoiser is None or not is_trained(self.proposer)

    def fit(
        self,
        sample: Sample,
        classes: np.ndarray,
        seed: int,
        *,
        index: np.ndarray | None = None,
        n_iter: int | None = None,
        bar: tqdm | None = None,
    ) -> FittedTiers:
        """Fit both tiers.

        Parameters
        ----------
        sample : Sample
            Labelled items; of every class at least one is trained on where a denoiser is trained.
        classes : array `[C]`
            Labels, by class number.
        seed : int
            Decides everything.
        index : int array, optional
            Items to train on; default all.
        n_iter : int, optional
            Passes to train for; default: until the loss on held-out images stops falling.
        bar : tqdm, optional
            Moved by one with each pass of the denoiser's training.
        """
        chosen = sample if index is None else sample.select(index)
        proposer = self.proposer
        if not is_trained(proposer):
            params = _check_method_params(sample.items.images, dict(self.proposer_params), index)
            if chosen.weight is not None:
                params |= {name: chosen.weight for name in weight_parameter(proposer)}
            proposer = _seeded(clone(proposer), seed).fit(input_of(proposer, chosen.items), classes[chosen.y], **params)
        if self.denoiser is not None:
            return FittedTiers(proposer, self.denoiser, None)
        denoiser, log = self._train(chosen, classes, seed, n_iter, bar, _is_of_one_unit(sample))
        return FittedTiers(proposer, denoiser, log)

    def _train(
        self,
        sample: Sample,
        classes: np.ndarray,
        seed: int,
        n_iter: int | None,
        bar: tqdm | None,
        is_of_one_unit: bool,
    ) -> tuple[LateConditionedDenoiser, TrainingLog]:
        images = sample.items.images
        mean, scale = _standard(images, is_of_one_unit)
        network = self._network(images.shape[1:], len(classes), seed).to(self.device)
        dtype = self.dtype or (torch.float64 if network.config["kind"] == "mlp" else torch.float32)
        encoder = LateConditionedDenoiser(network, classes, mean, scale, torch.float32, self.device)
        # a mean of 1 keeps the size of the loss, and with it what the learning rate means
        weight = None if sample.weight is None else (sample.weight / sample.weight.mean()).astype(np.float32)
        examples = Examples(encoder.encode(images), self._sent(sample.y), self._sent(weight))
        config = replace(self.training, augment=images.ndim == 4)
        held_out = None
        if n_iter is not None:
            config = replace(config, max_iter=n_iter)
        elif self.validation_fraction * len(sample) >= MIN_HELD_OUT:
            kept, out = hold_out(sample.y, self.validation_fraction, seed, sample.groups)
            held_out = examples.select(out) if len(out) else None
            examples = examples.select(kept)
        network.train().requires_grad_(True)
        log = train(network, examples, config, held_out=held_out, seed=seed, bar=bar)
        return LateConditionedDenoiser(network, classes, mean, scale, dtype, self.device), log

    def _sent(self, values: np.ndarray | None) -> Any:
        return None if values is None else torch.from_numpy(values).to(self.device)

    def _network(self, shape: tuple[int, ...], n_classes: int, seed: int) -> LateConditioned:
        """A new network for images `[H, W, C]` or vectors `[d]`, its weights decided by the seed."""
        small = len(shape) == 1 or np.prod(shape) <= SMALL_IMAGE
        mlp = self.architecture == "mlp" or (self.architecture == "auto" and small)
        first = shape if len(shape) == 1 else (shape[2], shape[0], shape[1])
        config = {"kind": "mlp"} if mlp else {"kind": "unet", "levels": _levels(shape)}
        return new_network({**config, "shape": first, "n_classes": n_classes}, seed)


def weight_parameter(proposer: Any) -> tuple[str, ...]:
    """Name of the argument of a proposer's `fit` that takes weights, in a pipeline that of its last step; or nothing.

    Where scikit-learn routes metadata, that is for those alone that request it.
    """
    if get_config()["enable_metadata_routing"]:
        return tuple(get_routing_for_object(proposer).consumes("fit", ["sample_weight"]))
    if has_fit_parameter(proposer, "sample_weight"):
        return ("sample_weight",)
    if isinstance(proposer, Pipeline):
        name, last = proposer.steps[-1]
        return tuple(f"{name}__{own}" for own in weight_parameter(last))
    return ()


def _levels(shape: tuple[int, ...]) -> int:
    """Resolutions of a U-Net: down to 4 pixels or an odd number of them, at most 3."""
    if len(shape) == 1:
        raise InvalidInputError("architecture='unet' needs images; for flattened ones give image_shape=(H, W)")
    levels, (height, width) = 1, shape[:2]
    while levels < 3 and height % 2 == width % 2 == 0 and min(height, width) >= 8:
        levels, height, width = levels + 1, height // 2, width // 2
    if levels < 2:
        raise InvalidInputError(
            f"a U-Net needs even sides of at least 8 pixels, got {shape[0]}x{shape[1]}; resize the images, or give "
            'architecture="mlp"'
        )
    return levels


def _standard(images: np.ndarray, is_of_one_unit: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of items to be encoded: by channel for images; for vectors by feature, or one scale for all."""
    axes = tuple(range(images.ndim - 1))
    mean, scale = images.mean(axis=axes, dtype=float), images.std(axis=axes, dtype=float)
    if is_of_one_unit:
        scale = np.full_like(scale, np.sqrt(np.square(scale).mean()))
    # a feature that is the same in all images would divide by zero, or by what rounding makes of it
    rounding = images.size / mean.size * np.finfo(float).eps * np.abs(mean)
    return mean, np.where(scale > rounding, scale, 1.0)


def _is_of_one_unit(sample: Sample) -> bool:
    """Tell whether one scale for all features tells the classes of vectors apart better, as it does flattened images.

    A scale of its own makes as much of a pixel in the margin as of one in the middle. With one scale, nearest
    neighbours must agree significantly more often in their class, by a sign test. All items are looked at, those held
    out of a fold among them, so that all folds decide alike.
    """
    X = sample.items.images
    if X.ndim > 2 or len(X) < 2:
        return False
    index = np.linspace(0, len(X) - 1, min(len(X), NEIGHBOURS)).astype(int)
    group = (np.arange(len(X)) if sample.groups is None else sample.groups)[index]
    own, one = ((X[index] - mean) / scale for mean, scale in (_standard(X, False), _standard(X, True)))
    before, after = (_agree(each, sample.y[index], group) for each in (own, one))
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained > lost and binomtest(gained, gained + lost, alternative="greater").pvalue < SIGNIFICANT


def _agree(X: np.ndarray, y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """True for rows `[n, d]` whose nearest neighbour of another group is of their class, bool `[n]`."""
    distance = pairwise_distances(X)
    distance[group[:, None] == group] = np.inf
    return y[distance.argmin(axis=1)] == y


def _seeded(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """The estimator with every random_state that was left open set to the seed."""
    open_states = [k for k, v in estimator.get_params().items() if k.split("__")[-1] == "random_state" and v is None]
    return estimator.set_params(**dict.fromkeys(open_states, seed))
