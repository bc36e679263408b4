"""Fitting both tiers on one set of images: once for good, and once per fold for the fusion's sake."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import train_test_split

from .errors import InvalidInputError
from .models import LateConditionedDenoiser, LateMLP, LateUNet
from .models.late import LateConditioned
from .proposing import is_trained
from .training import TrainingConfig, TrainingLog, train

__all__ = ["Parts", "Recipe", "rows_of"]

SMALL_IMAGE = 256
"""Numbers in an image up to which an MLP is trained for it instead of a U-Net."""

MIN_HELD_OUT = 10
"""Fewer images than this say nothing about when to stop; training then runs to its end."""


class Parts(NamedTuple):
    """Both tiers, and how the denoiser's training went (None where it was given)."""

    proposer: Any
    denoiser: Any
    log: TrainingLog | None


@dataclass(frozen=True)
class Recipe:
    """How to fit both tiers.

    Attributes
    ----------
    proposer : object
        Cloned and fitted unless it is trained already.
    denoiser : Denoiser or None
        Used as it is; None to train one.
    architecture : "auto", "mlp" or "unet"
        The network to train. "auto": an MLP for vectors and images of at most `SMALL_IMAGE` numbers.
    training : TrainingConfig
        How to train it.
    validation_fraction : float
        Share of the images held out for early stopping.
    device : torch.device
        Where to train and run it.
    dtype : torch.dtype or None
        What to run it in; None: float64 for an MLP, float32 for a U-Net.
    progress : bool
        Whether to show progress bars.
    """

    proposer: Any
    denoiser: Any
    architecture: str
    training: TrainingConfig
    validation_fraction: float
    device: torch.device
    dtype: torch.dtype | None
    progress: bool

    @property
    def trains(self) -> bool:
        """Whether fitting changes anything: False if both parts are trained already."""
        return self.denoiser is None or not is_trained(self.proposer)

    def fit(self, images: Any, y: np.ndarray, classes: np.ndarray, seed: int, n_iter: int | None = None) -> Parts:
        """Fit both tiers.

        Parameters
        ----------
        images : array `[n, d]` or `[n, H, W, C]`, or list of images
            Training images.
        y : int array `[n]`
            Class numbers; every class has at least one image where a denoiser is trained.
        classes : array `[C]`
            The labels they stand for.
        seed : int
            Decides everything.
        n_iter : int, optional
            Passes to train for; default: until the loss on held-out images stops falling.
        """
        proposer = self.proposer
        if not is_trained(proposer):
            proposer = _seeded(clone(proposer), seed).fit(rows_of(images), classes[y])
        if self.denoiser is not None:
            return Parts(proposer, self.denoiser, None)
        denoiser, log = self._train(images, y, classes, seed, n_iter)
        return Parts(proposer, denoiser, log)

    def _train(
        self, images: np.ndarray, y: np.ndarray, classes: np.ndarray, seed: int, n_iter: int | None
    ) -> tuple[LateConditionedDenoiser, TrainingLog]:
        mean, scale = _standard(images)
        network = self._network(images.shape[1:], len(classes), seed).to(self.device)
        dtype = self.dtype or (torch.float64 if isinstance(network, LateMLP) else torch.float32)
        encoder = LateConditionedDenoiser(network, classes, mean, scale, torch.float32, self.device)
        x0, labels = encoder.encode(images), torch.from_numpy(y).to(self.device)
        config = replace(self.training, augment=images.ndim == 4)
        held_out = None
        if n_iter is not None:
            config = replace(config, max_iter=n_iter)
        elif self.validation_fraction * len(y) >= MIN_HELD_OUT:
            kept, out = train_test_split(np.arange(len(y)), test_size=self.validation_fraction, random_state=seed)
            held_out, x0, labels = (x0[out], labels[out]), x0[kept], labels[kept]
        network.train().requires_grad_(True)
        log = train(network, x0, labels, config, held_out=held_out, seed=seed, progress=self.progress)
        return LateConditionedDenoiser(network, classes, mean, scale, dtype, self.device), log

    def _network(self, shape: tuple[int, ...], n_classes: int, seed: int) -> LateConditioned:
        """A new network for images `[H, W, C]` or vectors `[d]`, its weights decided by the seed."""
        small = len(shape) == 1 or np.prod(shape) <= SMALL_IMAGE
        mlp = self.architecture == "mlp" or (self.architecture == "auto" and small)
        first = shape if len(shape) == 1 else (shape[2], shape[0], shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LateMLP(first, n_classes) if mlp else LateUNet(first, n_classes, levels=_levels(shape))


def _levels(shape: tuple[int, ...]) -> int:
    """Resolutions of a U-Net: down to 4 pixels or an odd number of them, at most 3."""
    if len(shape) == 1:
        raise InvalidInputError("architecture='unet' needs images; for flattened ones give image_shape=(H, W)")
    levels, (height, width) = 1, shape[:2]
    while levels < 3 and height % 2 == width % 2 == 0 and min(height, width) >= 8:
        levels, height, width = levels + 1, height // 2, width // 2
    if levels < 2:
        raise InvalidInputError(
            f"a U-Net needs even sides of at least 8 pixels, got {shape[0]}x{shape[1]}; resize the images"
        )
    return levels


def _standard(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale: by feature for vectors, by channel for images."""
    axes = tuple(range(images.ndim - 1))
    scale = images.std(axis=axes, dtype=float)
    return images.mean(axis=axes, dtype=float), np.where(scale > 1e-12, scale, 1.0)


def _seeded(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """The estimator with every random_state that was left open set to the seed."""
    open_states = [k for k, v in estimator.get_params().items() if k.split("__")[-1] == "random_state" and v is None]
    return estimator.set_params(**dict.fromkeys(open_states, seed))


def rows_of(images: Any) -> np.ndarray:
    """Images as flat float vectors `[n, d]`, which is what a scikit-learn classifier takes."""
    array = np.asarray(images)
    return array.reshape(len(array), -1).astype(float, copy=False)
