"""Recipe of a pair: the networks of both tiers, their losses, and the split of the images."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import plugins
from ..data.arrays import shrunk
from ..data.datasets import LabelledImages, channel_statistics
from ..data.duplicates import duplicate_groups
from ..data.holding_out import digests, join_groups, split, spread
from ..devices import can_compile, has_bf16
from ..errors import InvalidInputError
from ..fitting.recording import RECORDED_CLASSES
from ..models import LateUNet
from ..models.factory import build
from ..ports import Trainable
from ..training.augmentation import distort, shift_and_mirror
from ..training.losses import denoising_loss
from ..training.trainer import Trainer, TrainerConfig
from .settings import PairSettings

__all__ = [
    "Job",
    "TrainingData",
    "classifier_job",
    "denoiser_job",
    "proposer_job",
    "seconds_per_row",
    "worth_compiling",
]

PROPOSERS = ("timm:convnet16", "timm:convnet32", "timm:convnet64")
"""Networks of tier 1 from the smallest on, as spec strings of the entry-point group `hybridclf.trainables`."""

PROPOSER_SHARE = 0.4
"""Most of the training time for the proposer; what it does not need is tier 2's."""

PATIENCE = 4
"""Checks without a lower held-out loss after which a tier has learned what it can."""

PREPARED_ON = 2000
"""About as many training images may a new proposer see before its training."""

PROPOSER_RATE, DENOISER_RATE = 1e-2, 4e-3
"""Peak learning rates."""

SMOOTHING = 0.1
"""Label smoothing of the proposer's cross-entropy."""

COMPILE_FROM = {"cpu": 15.0, "cuda": 5.0}
"""Shortest training in minutes, by device, for which compiling its network pays.

On a CPU compiling takes a minute or two and saves a third of the rest; on an H100 it took 50 seconds and saved a sixth.
"""

UNET: dict[str, Any] = {"levels": 3, "attention": True}
"""Arguments of tier 2's U-Net, except its widths, depth and patch size."""

WIDTHS = (16, 32, 64)
"""Channels of the U-Net at full resolution, from the smallest network on."""

HEAD_WIDTH = 32
"""Most channels of the U-Net's head."""

DEPTH = {"cpu": 1, "cuda": 2}
"""Residual blocks of the U-Net per resolution, by training device.

Two take 1.6 times the FLOPs of one, and a CPU sees few images in an hour as it is.
"""

GRID = 16
"""Patches per side of an image, which decides the U-Net's patch size."""

TIMES = (0.02, 0.35)
"""Range of the most informative times; see `denoising_loss`.

After an hour on CIFAR-10, the accuracy of a single trial on held-out images was 80 to 82 % up to t = 0.25, 75 % at
0.48 and 49 % at 0.79.
"""

HELD_OUT = 500
"""Most held-out images to fit the fusion on, and most others to measure the result on."""

CHECKED = 500
"""Most held-out images per check of the loss."""

BATCH_SIZE = {"cpu": 128, "cuda": 1024}
"""Most images per step, by device."""

TIMED_ROWS = 32
"""Rows that tier 2's speed is measured on."""

PairLoss = Callable[[Any, Tensor, Tensor, torch.Generator], Tensor]
"""Function from (network, standardised images `[B, 3, S, S]`, class numbers `[B]`, generator) to a loss."""


@dataclass(frozen=True)
class TrainingData:
    """Images of both trainings, split and on the training device.

    Copies of one picture and images of one group are in the same split.

    Attributes
    ----------
    pixels, y : Tensor `[n, S, S, 3]` uint8, `[n]`
        Training images for tier 2, and their class numbers.
    digests, groups : uint32 array `[n]`, int array `[n]`
        Hashes of the training images, and their groups.
    held_out, held_out_y : Tensor `[m, S, S, 3]` uint8, `[m]`
        Held-out images for tier 2, and their class numbers.
    photos, held_out_photos : uint8 array `[n, kS, kS, 3]`, `[m, kS, kS, 3]`
        The same images for tier 1, k times as large.
    fit_on, measure_on : int array
        Positions among the held-out images: to fit the fusion on, and to measure the result on.
    classes : array `[C]`
        Class names.
    mean, scale : float array `[3]`
        Mean and standard deviation of the training images' channels.
    mirror : bool
        Mirrored images show the same class.
    compiles : bool
        Networks may be compiled.
    settings : PairSettings
        Settings of the training.
    conflicts : tuple of str
        Nearly equal pictures under two labels, a sentence each.
    """

    pixels: Tensor
    y: Tensor
    digests: np.ndarray
    groups: np.ndarray
    held_out: Tensor
    held_out_y: Tensor
    photos: np.ndarray
    held_out_photos: np.ndarray
    fit_on: np.ndarray
    measure_on: np.ndarray
    classes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    mirror: bool
    compiles: bool
    settings: PairSettings
    conflicts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        images: LabelledImages,
        device: torch.device,
        mirror: bool,
        settings: PairSettings,
        compiles: bool = False,
        seen: np.ndarray | None = None,
    ) -> "TrainingData":
        """Split images into training and held-out ones, and move them to the device.

        Parameters
        ----------
        images : LabelledImages
            All images, their side a multiple of the settings' image size.
        device : torch.device
            Training device.
        mirror : bool
            Mirrored images show the same class.
        settings : PairSettings
            Settings of the training.
        compiles : bool
            Networks may be compiled.
        seen : uint32 array, optional
            Digests of images that an earlier training saw; they are not held out.

        Raises
        ------
        InvalidInputError
            If classes or groups cannot be split so.
        """
        digest = digests(images.pixels)
        copies, groups, kept, out = _hold_out(images, digest, mirror, settings, seen)
        # the fusion and the measurement never share an image, nor copies of one
        fit_on = _half(images.y[out], groups[out])
        # copies, for which `largest_multiple` leaves room
        photos, held_out_photos = images.pixels[kept], images.pixels[out]
        factor = images.pixels.shape[1] // settings.image_size
        pixels = shrunk(photos, factor)
        mean, scale = channel_statistics(pixels)
        return cls(
            pixels=torch.from_numpy(pixels).to(device),
            y=torch.from_numpy(images.y[kept]).to(device),
            digests=digest[kept],
            groups=groups[kept],
            held_out=torch.from_numpy(shrunk(held_out_photos, factor)).to(device),
            held_out_y=torch.from_numpy(images.y[out]).to(device),
            photos=photos,
            held_out_photos=held_out_photos,
            fit_on=fit_on,
            measure_on=np.setdiff1d(np.arange(len(out)), fit_on)[:HELD_OUT],
            classes=np.array(images.classes),
            mean=mean,
            scale=scale,
            mirror=mirror,
            compiles=compiles,
            settings=settings,
            conflicts=conflicts(images, copies),
        )

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.pixels.device

    def encode(self, pixels: Tensor) -> Tensor:
        """Standardise images `[n, S, S, 3]` to float32 `[n, 3, S, S]`."""
        mean, scale = (torch.from_numpy(v).float().to(pixels.device).view(3, 1, 1) for v in (self.mean, self.scale))
        return (pixels.permute(0, 3, 1, 2).float() - mean) / scale

    def some_held_out(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select held-out images at positions `[m]` in tier 1's size, with their labels."""
        return self.held_out_photos[chosen], self.classes[self.held_out_y.cpu().numpy()[chosen]]

    @property
    def shrink(self) -> int:
        """Times that a side of tier 1's images is a side of tier 2's."""
        return self.photos.shape[1] // self.settings.image_size

    def new_trainable(self, spec: str) -> Trainable:
        """Make a new classifier for these images; the seed decides its weights."""
        # adapters draw from torch's global generator, which is restored afterwards
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            made: Trainable = plugins.load(
                "trainable",
                spec,
                classes=self.classes.tolist(),
                image_size=self.settings.image_size,
                mean=self.mean.tolist(),
                scale=self.scale.tolist(),
            )
            if hasattr(made, "prepare"):
                some = self.pixels[:: max(1, len(self.pixels) // PREPARED_ON)]  # of every class, in whatever order
                made.prepare(self.encode(some).cpu(), self.mirror)
        return made

    def new_denoiser(self, width: int) -> LateUNet:
        """Make a new U-Net for these images and this device; the seed decides its weights."""
        config = {
            "kind": "unet",
            "shape": self.shape,
            "n_classes": len(self.classes),
            "width": width,
            "head_width": min(width, HEAD_WIDTH),
            "patch": max(1, self.settings.image_size // GRID),
            "depth": DEPTH.get(self.device.type, 1),
        }
        return self.same_denoiser(config | UNET)

    def same_denoiser(self, config: Mapping[str, Any]) -> LateUNet:
        """Make a U-Net of this configuration; the seed decides its weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return cast(LateUNet, build(dict(config)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an encoded image."""
        return 3, self.settings.image_size, self.settings.image_size


def _hold_out(
    images: LabelledImages, digest: np.ndarray, mirror: bool, settings: PairSettings, seen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group the images and split them.

    Pictures of one place or thing may all look like copies. If nothing can be held out for that reason, only equal
    images count as copies.

    Returns
    -------
    copies, groups : int array `[n]`
        Group numbers of copies, and of copies and the images' own groups together.
    kept, out : int arrays
        Positions of training and held-out images.
    """
    share, seed = settings.validation_fraction, settings.seed
    copies = duplicate_groups(images.pixels, mirror)
    groups = join_groups(images.groups, copies)
    try:
        return copies, groups, *split(images.y, groups, digest, share, seed, images.classes, seen)
    except InvalidInputError:
        # equal digests: the same pixels
        copies = np.unique(digest, return_inverse=True)[1]
        groups = join_groups(images.groups, copies)
        held_out = split(images.y, groups, digest, share, seed, images.classes, seen)
    warnings.warn(
        "so many images are nearly equal that only equal ones are held out together: on held-out images the result "
        "may look better than on new ones; name a column of groups, if there is one",
        stacklevel=2,
    )
    return copies, groups, *held_out


def conflicts(images: LabelledImages, copies: np.ndarray) -> tuple[str, ...]:
    """Pictures under several labels, a sentence each: every group of copies with more than one, by its first images."""
    found = []
    order = np.lexsort((images.y, copies))  # by group, and by label within a group
    for group in np.split(order, np.flatnonzero(np.diff(copies[order])) + 1):
        labels, first = np.unique(images.y[group], return_index=True)
        if len(labels) > 1:
            same = zip(labels.tolist(), group[first].tolist(), strict=True)
            found.append(" and ".join(f"{images.names[i]} ({images.classes[label]})" for label, i in same))
    return tuple(found)


def _half(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Choose about half of the held-out images in whole groups: at most `HELD_OUT`, one of each class first."""
    counts = np.bincount(y)
    wanted = np.maximum(1, np.round(min(0.5, HELD_OUT / len(y)) * counts)) * (counts > 0)
    # the key of a group is the position of its first image: held-out images are already in random order
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    chosen = spread(y, groups, first[group], wanted.astype(int), counts)
    one_each = np.unique(y[chosen], return_index=True)[1]
    return np.concatenate([chosen[one_each], np.delete(chosen, one_each)])


@torch.inference_mode()
def seconds_per_row(network: nn.Module, data: TrainingData) -> float:
    """Time of tier 2 for one row with all classes, or as many as it is asked for, by that of a few."""
    x0, k = data.encode(data.pixels[:TIMED_ROWS]), min(len(data.classes), RECORDED_CLASSES)
    t = torch.full((len(x0),), 0.2, device=data.device)
    row = torch.arange(len(x0), device=data.device).repeat_interleave(k)
    label = torch.arange(k, device=data.device).repeat(len(x0))
    begin = 0.0
    for _ in range(2):  # the first pass allocates memory
        begin = time.perf_counter()
        float(network(x0, t, row, label).sum())  # waits for the device
    return (time.perf_counter() - begin) / len(x0)


class Job(NamedTuple):
    """Training of one network.

    Attributes
    ----------
    name : str
        "proposer" or "denoiser" in a pair.
    seconds : float
        Time to train.
    trainer : Trainer
        Trainer at its start.
    held_out : function
        From a network to its loss on held-out images.
    loss : mapping
        Settings of the loss, as plain JSON.
    """

    name: str
    seconds: float
    trainer: Trainer
    held_out: Callable[[nn.Module], float]
    loss: Mapping[str, Any]


def proposer_job(data: TrainingData, network: nn.Module) -> Job:
    """Set up tier 1's training of a new network."""
    return classifier_job("proposer", PROPOSER_SHARE * data.settings.minutes, data, network)


def classifier_job(name: str, minutes: float, data: TrainingData, network: nn.Module) -> Job:
    """Set up a new classifier's training by cross-entropy."""
    return _job(name, minutes, PROPOSER_RATE, data, network, _classifier_loss, {"label_smoothing": SMOOTHING})


def denoiser_job(data: TrainingData, network: LateUNet) -> Job:
    """Set up tier 2's training of a new U-Net by the denoising loss and the wrong-class term."""
    options: dict[str, Any] = {"wrong_class_weight": data.settings.wrong_class_weight, "times": TIMES}
    loss = partial(_denoiser_loss, **options)
    minutes = (1 - PROPOSER_SHARE) * data.settings.minutes
    return _job("denoiser", minutes, DENOISER_RATE, data, network, loss, options)


def _classifier_loss(network: nn.Module, x0: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    return F.cross_entropy(network(x0).float(), y, label_smoothing=SMOOTHING)


def _denoiser_loss(
    network: LateUNet,
    x0: Tensor,
    y: Tensor,
    rng: torch.Generator,
    *,
    wrong_class_weight: float,
    times: tuple[float, float],
) -> Tensor:
    return denoising_loss(network, x0, y, wrong_class_weight, rng, times)


def _config(data: TrainingData, minutes: float, learning_rate: float) -> TrainerConfig:
    """Settings of a trainer for this device."""
    # no batch size may leave a last batch of one image, which batch normalisation refuses
    n, most = len(data.y), BATCH_SIZE.get(data.device.type, 128)
    return TrainerConfig(
        batch_size=next(size for size in range(min(n, most), 1, -1) if n % size != 1),
        learning_rate=learning_rate,
        weight_decay=0.05,
        ema_decay=0.999,
        bf16=has_bf16(data.device),
        muon=True,
        compiled=data.compiles and _pays(minutes, data.device),
    )


def _job(
    name: str,
    minutes: float,
    rate: float,
    data: TrainingData,
    network: nn.Module,
    loss: PairLoss,
    options: Mapping[str, Any],
) -> Job:
    """Set up a training on augmented images, with held-out images as they are."""

    def augmented(network: nn.Module, pixels: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return loss(network, distort(data.encode(shift_and_mirror(pixels, rng, data.mirror)), rng), y, rng)

    @torch.no_grad()
    def held_out(network: nn.Module) -> float:
        rng = torch.Generator(data.device).manual_seed(0)  # the same noise every time, so that losses compare
        checked = torch.from_numpy(data.fit_on[:CHECKED]).to(data.device)  # never what the result is measured on
        images, y = data.held_out[checked], data.held_out_y[checked]
        chunks = zip(images.split(config.batch_size), y.split(config.batch_size), strict=True)
        return sum(float(loss(network, data.encode(x), c, rng)) * len(c) for x, c in chunks) / len(y)

    # convolutions are faster with channels last
    network = network.to(data.device).to(memory_format=torch.channels_last)
    config = _config(data, minutes, rate)
    trainer = Trainer(network, data.pixels, data.y, augmented, config, 0, data.settings.seed)
    return Job(name, 60 * minutes, trainer, held_out, options)


def worth_compiling(minutes: float, device: torch.device) -> bool:
    """Tell whether a training of so many minutes compiles its networks."""
    return _pays(minutes, device) and can_compile(device)


def _pays(minutes: float, device: torch.device) -> bool:
    """Tell whether compiling a network pays in so many minutes of its training."""
    return minutes >= COMPILE_FROM.get(device.type, math.inf)
