"""The two trainings behind a pair: what each network is, and the loss that it is trained on."""

import math
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
from ..data.datasets import LabelledImages, channel_statistics
from ..data.duplicates import duplicate_groups
from ..data.holding_out import digests, join_groups, split, spread
from ..devices import can_compile, has_bf16
from ..errors import InvalidInputError
from ..models import LateUNet
from ..models.factory import build
from ..ports import Trainable
from ..training.augmentation import distort, shift_and_mirror
from ..training.losses import denoising_loss
from ..training.trainer import Trainer, TrainerConfig

__all__ = [
    "Job",
    "PairSettings",
    "TrainingData",
    "classifier_job",
    "denoiser_job",
    "proposer_job",
    "worth_compiling",
]

PROPOSER = "timm:small"
"""The network that becomes tier 1, as a spec string of the entry-point group `hybridclf.trainables`."""

PROPOSER_SHARE = 0.15
"""Share of the time that goes to the proposer."""

SMOOTHING = 0.1
"""Label smoothing of its cross-entropy."""

COMPILE_FROM = {"cpu": 15.0, "cuda": 5.0}
"""Minutes of a training from which compiling its network pays, by device.

On a processor it takes one or two, and saves a third of the rest; on an H100 it took 50 seconds and saved a sixth.
"""

UNET: dict[str, Any] = {"width": 64, "levels": 3, "head_width": 32, "attention": True}
"""The U-Net that becomes tier 2; beside its depth, and a size of its patches that leaves `GRID` of them a side."""

DEPTH = {"cpu": 1, "cuda": 2}
"""Its blocks per resolution, by what trains it: two take 1.6 times the FLOPs of one, and a processor has few images an
hour as it is.
"""

GRID = 16

TIMES = (0.02, 0.35)
"""Times that tell classes apart; see `denoising_loss`.

After an hour on CIFAR-10 a single trial was right for 80 to 82 % of held-out images up to t = 0.25, for 75 % at 0.48,
for 49 % at 0.79.
"""

HELD_OUT = 500
"""Held-out images that the fusion is fitted on, and others that the result is measured on, at most."""

CHECKED = 500
"""Held-out images that the loss is looked at on, at most."""

BATCH_SIZE = {"cpu": 128, "cuda": 1024}

PairLoss = Callable[[Any, Tensor, Tensor, torch.Generator], Tensor]
"""From a network, standardised images `[B, 3, S, S]`, class numbers `[B]` and a source of noise to a loss."""


@dataclass(frozen=True)
class PairSettings:
    """What decides a training, beside the images and the device.

    Attributes
    ----------
    minutes : float
        Time to train both tiers for; the fusion comes on top.
    wrong_class_weight : float
        Weight of the wrong-class term in the denoiser's loss; 0: denoising alone.
    image_size : int
        Side in pixels that images are stretched to: 8 or a multiple of 16.
    validation_fraction : float
        Share of the images held out, for the fusion and to measure the result.
    seed : int
        Decides everything that is left to chance.
    start_from : str or None
        A pair that was trained in this way before, for the same classes: a folder or the name of an embedded model. Its
        weights are the first; None: random ones.
    group : str or None
        Column of a Parquet file by which images belong together and are held out together, as frames of one film. None:
        "group", if there is one.
    """

    minutes: float = 30.0
    wrong_class_weight: float = 1.0
    image_size: int = 32
    validation_fraction: float = 0.1
    seed: int = 0
    start_from: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        _check("minutes", self.minutes, 0 < self.minutes < math.inf, "above 0 and finite")
        _check(
            "wrong_class_weight",
            self.wrong_class_weight,
            0 <= self.wrong_class_weight < math.inf,
            "at least 0 and finite",
        )
        whole = isinstance(self.image_size, int)
        sized = whole and (self.image_size == 8 or (self.image_size > 0 and self.image_size % 16 == 0))
        _check("image_size", self.image_size, sized, "8, 16, 32, 48, 64 or another multiple of 16")
        _check(
            "seed",
            self.seed,
            isinstance(self.seed, int) and 0 <= self.seed < 2**32,
            "a whole number from 0 to 2**32 - 1",
        )
        _check("validation_fraction", self.validation_fraction, 0 < self.validation_fraction < 1, "between 0 and 1")


def _check(name: str, value: float, fits: bool, accepted: str) -> None:
    if not fits:
        raise InvalidInputError(f"{name} must be {accepted}, got {value!r}")


@dataclass(frozen=True)
class TrainingData:
    """What both trainings need: images uint8 `[n, S, S, 3]` and class numbers `[n]`, on the device that trains.

    Held-out images are those to fit the fusion on and those to measure the result on, as positions among them; copies
    of one picture and images of one group are on one side together.
    """

    pixels: Tensor
    y: Tensor
    digests: np.ndarray
    held_out: Tensor
    held_out_y: Tensor
    fit_on: np.ndarray
    measure_on: np.ndarray
    classes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    mirror: bool
    compiles: bool
    settings: PairSettings

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
        """Images split into those to train on and those held out, and moved to the device.

        Parameters
        ----------
        images : LabelledImages
            All there are.
        device : torch.device
            What trains.
        mirror : bool
            Whether a mirrored picture shows the same.
        settings : PairSettings
            Of the training.
        compiles : bool
            Whether networks may be compiled.
        seen : uint32 array, optional
            Digests of images that are not held out, as an earlier training saw them.

        Raises
        ------
        InvalidInputError
            If classes or groups cannot be split so.
        """
        digest = digests(images.pixels)
        groups, kept, out = _hold_out(images, digest, mirror, settings, seen)
        fit_on = _half(images.y[out], groups[out])
        pixels = images.pixels[kept]
        mean, scale = channel_statistics(pixels)
        return cls(
            pixels=torch.from_numpy(pixels).to(device),
            y=torch.from_numpy(images.y[kept]).to(device),
            digests=digest[kept],
            held_out=torch.from_numpy(images.pixels[out]).to(device),
            held_out_y=torch.from_numpy(images.y[out]).to(device),
            fit_on=fit_on,
            measure_on=np.setdiff1d(np.arange(len(out)), fit_on)[:HELD_OUT],
            classes=np.array(images.classes),
            mean=mean,
            scale=scale,
            mirror=mirror,
            compiles=compiles,
            settings=settings,
        )

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.pixels.device

    def encode(self, pixels: Tensor) -> Tensor:
        """Standardised images float32 `[n, 3, S, S]`."""
        mean, scale = (torch.from_numpy(v).float().to(pixels.device).view(3, 1, 1) for v in (self.mean, self.scale))
        return (pixels.permute(0, 3, 1, 2).float() - mean) / scale

    def some_held_out(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Held-out images at some positions `[m]`, and their labels."""
        index = torch.from_numpy(chosen).to(self.device)
        return self.held_out[index].cpu().numpy(), self.classes[self.held_out_y[index].cpu().numpy()]

    def new_trainable(self, spec: str = PROPOSER) -> Trainable:
        """A new classifier for these images, its weights decided by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return plugins.load(
                "trainable",
                spec,
                classes=self.classes.tolist(),
                image_size=self.settings.image_size,
                mean=self.mean.tolist(),
                scale=self.scale.tolist(),
            )

    def new_denoiser(self, config: Mapping[str, Any] | None = None) -> LateUNet:
        """A new U-Net for these images, its weights decided by the seed; None: what this device trains."""
        size = self.settings.image_size
        ours = {"patch": max(1, size // GRID), "depth": DEPTH.get(self.device.type, 1)} | UNET
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return cast(LateUNet, build(dict(config))) if config else LateUNet(self.shape, len(self.classes), **ours)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an encoded image."""
        return 3, self.settings.image_size, self.settings.image_size


def _hold_out(
    images: LabelledImages, digest: np.ndarray, mirror: bool, settings: PairSettings, seen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of copies and of what belongs together, `[n]`; the images to train on, and those held out.

    Pictures of one place or thing may all look like copies. If nothing could be held out then, only equal ones count.
    """
    share, seed = settings.validation_fraction, settings.seed
    groups = join_groups(images.groups, duplicate_groups(images.pixels, mirror))
    try:
        return groups, *split(images.y, groups, digest, share, seed, images.classes, seen)
    except InvalidInputError:
        groups = join_groups(images.groups, np.unique(digest, return_inverse=True)[1])
        held_out = split(images.y, groups, digest, share, seed, images.classes, seen)
    warnings.warn(
        "so many images are nearly equal that only equal ones are held out together: on held-out images the result "
        "may look better than on new ones; name a column of groups, if there is one",
        stacklevel=2,
    )
    return groups, *held_out


def _half(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Positions of half of the held-out images, `HELD_OUT` at most, but one of each class: whole groups."""
    counts = np.bincount(y)
    wanted = np.maximum(1, np.round(min(0.5, HELD_OUT / len(y)) * counts)) * (counts > 0)
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return spread(y, groups, first[group], wanted.astype(int), counts)


class Job(NamedTuple):
    """A training: its name, the seconds it is given, its trainer, the loss on held-out images, the loss's settings."""

    name: str
    seconds: float
    trainer: Trainer
    held_out: Callable[[nn.Module], float]
    loss: Mapping[str, Any]


def proposer_job(task: TrainingData, network: nn.Module) -> Job:
    """Tier 1's training, of that new network."""
    return classifier_job("proposer", PROPOSER_SHARE * task.settings.minutes, task, network)


def classifier_job(name: str, minutes: float, task: TrainingData, network: nn.Module) -> Job:
    """The training of a new classifier: cross-entropy."""
    return _job(name, minutes, task, network, _classifier_loss, {"label_smoothing": SMOOTHING})


def denoiser_job(task: TrainingData, network: LateUNet) -> Job:
    """Tier 2's training, of that new U-Net: the denoising loss and, if wanted, the wrong-class term."""
    options: dict[str, Any] = {"wrong_class_weight": task.settings.wrong_class_weight, "times": TIMES}
    loss = partial(_denoiser_loss, **options)
    return _job("denoiser", (1 - PROPOSER_SHARE) * task.settings.minutes, task, network, loss, options)


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


def _config(task: TrainingData, minutes: float) -> TrainerConfig:
    """For batches that never leave a single image over, as one alone cannot be batch-normalised."""
    n, most = len(task.y), BATCH_SIZE.get(task.device.type, 128)
    return TrainerConfig(
        batch_size=next(size for size in range(min(n, most), 1, -1) if n % size != 1),
        learning_rate=4e-3,
        weight_decay=0.05,
        ema_decay=0.999,
        bf16=has_bf16(task.device),
        muon=True,
        compiled=task.compiles and _pays(minutes, task.device),
    )


def _job(
    name: str, minutes: float, task: TrainingData, network: nn.Module, loss: PairLoss, options: Mapping[str, Any]
) -> Job:
    """A training on images that are changed a little; held-out ones stay as they are, and so does their noise."""

    def augmented(network: nn.Module, pixels: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return loss(network, distort(task.encode(shift_and_mirror(pixels, rng, task.mirror)), rng), y, rng)

    @torch.no_grad()
    def held_out(network: nn.Module) -> float:
        rng = torch.Generator(task.device).manual_seed(0)
        images, y = task.held_out[:CHECKED], task.held_out_y[:CHECKED]
        chunks = zip(images.split(config.batch_size), y.split(config.batch_size), strict=True)
        return sum(float(loss(network, task.encode(x), c, rng)) * len(c) for x, c in chunks) / len(y)

    network = network.to(task.device).to(memory_format=torch.channels_last)
    config = _config(task, minutes)
    trainer = Trainer(network, task.pixels, task.y, augmented, config, 0, task.settings.seed)
    return Job(name, 60 * minutes, trainer, held_out, options)


def worth_compiling(minutes: float, device: torch.device) -> bool:
    """Whether networks are compiled in a training of so many minutes."""
    return _pays(minutes, device) and can_compile(device)


def _pays(minutes: float, device: torch.device) -> bool:
    """Whether compiling what is trained for so many minutes would pay."""
    return minutes >= COMPILE_FROM.get(device.type, math.inf)
