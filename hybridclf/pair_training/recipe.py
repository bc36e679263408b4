"""Recipe of a pair: the losses of both tiers, their augmentation, and the settings of their trainers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import can_compile, has_bf16
from ..models import LateUNet
from ..ports import FineTunable
from ..reranking.fusion import Fusion
from ..training.augmentation import add_noise, distort, shift_and_mirror
from ..training.depthwise import depthwise_in_float32
from ..training.losses import denoising_loss
from ..training.trainer import Trainer, TrainerConfig, check_finite
from .training_data import TrainingData

__all__ = [
    "TUNING_BATCH",
    "Job",
    "classifier_job",
    "denoiser_job",
    "fine_tuning_job",
    "proposer_job",
    "tempered_losses",
    "worth_compiling",
]

PROPOSER_SHARE = 0.6
"""Planned share of the training time for the proposer, unless its shortest worthwhile training takes more.

Its held-out loss decides: it ends earlier once that is settled, and later if that still falls. Tier 2 has the rest. The
proposer learns much faster than tier 2, and is the answer wherever tier 2 does not pay.
"""

DENOISER_SHARE = 1 - PROPOSER_SHARE
"""Share of the training time by which tier 2's width is chosen, and whether it is compiled.

It has more where tier 1 settles early, and less where tier 1 still improves or its shortest worthwhile training takes
most of the time.
"""

PATIENCE = 4
"""Checks without a lower held-out loss after which a tier has learned what it can."""

PROPOSER_RATE, DENOISER_RATE = 1e-2, 4e-3
"""Peak learning rates."""

SMOOTHING = 0.1
"""Label smoothing of the proposer's cross-entropy."""

TUNING_BATCH, TUNING_RATE, TUNING_WEIGHT_DECAY = 32, 3e-4, 0.02
"""Fine-tuning of a pretrained network: images per step, peak learning rate of its last layer, and weight decay."""

LAYER_DECAY, LOWEST_RATE = 0.75, 0.01
"""Factor from the learning rate of each layer to that of the one before it, and the lowest rate in parts of the last.

Without a floor, two thirds of the layers of a ResNet-152 would have less than a hundredth.
"""

COMPILE_FROM = {"cpu": 10.0, "cuda": 5.0}
"""Shortest training of a network in minutes, by device, for which compiling it pays.

On a CPU, where only tier 2 is compiled, that takes a minute or two and saves a third of the rest; on an H100 it took 50
seconds and saved a sixth.
"""

TIMES = (0.02, 0.35)
"""Range of the most informative times; see `denoising_loss`.

After an hour on CIFAR-10, the accuracy of a single trial on held-out images was 80 to 82 % up to t = 0.25, 75 % at
0.48 and 49 % at 0.79.
"""

CHECKED = 500
"""Most held-out images per check of the loss."""

BATCH_SIZE = {"cpu": 128, "cuda": 1024}
"""Most images per step, by device."""

PairLoss = Callable[[Any, Tensor, Tensor, torch.Generator], Tensor]
"""Function from (network, standardised images `[B, 3, S, S]`, class numbers `[B]`, generator) to a loss."""


class Job(NamedTuple):
    """Training of one network.

    Attributes
    ----------
    name : str
        "proposer" or "denoiser" in a pair.
    trainer : Trainer
        Trainer at its start.
    held_out : function
        From a network to its loss on held-out images.
    loss : mapping
        Settings of the loss, as plain JSON.
    """

    name: str
    trainer: Trainer
    held_out: Callable[[nn.Module], float]
    loss: Mapping[str, Any]


def proposer_job(data: TrainingData, network: nn.Module) -> Job:
    """Set up tier 1's training of a new network."""
    return classifier_job("proposer", PROPOSER_SHARE * data.settings.minutes, data, network)


def classifier_job(name: str, minutes: float, data: TrainingData, network: nn.Module) -> Job:
    """Set up a new classifier's training by cross-entropy, on images of which half have a little noise."""

    def augment(x0: Tensor, rng: torch.Generator) -> Tensor:
        return add_noise(distort(x0, rng), rng)

    # on one core of an AMD EPYC with AVX512-BF16 `convnet64` trains 0.9 times as fast compiled, a U-Net 1.8 times
    data = replace(data, compiles=data.compiles and data.device.type != "cpu")
    options = {"label_smoothing": SMOOTHING}
    return _job(name, minutes, PROPOSER_RATE, data, network, _classifier_loss, options, augment)


def denoiser_job(data: TrainingData, network: LateUNet) -> Job:
    """Set up tier 2's training of a new U-Net by the denoising loss and the wrong-class term."""
    options: dict[str, Any] = {"wrong_class_weight": data.settings.wrong_class_weight, "times": TIMES}
    loss = partial(_denoiser_loss, **options)
    minutes = DENOISER_SHARE * data.settings.minutes
    return _job("denoiser", minutes, DENOISER_RATE, data, network, loss, options)


def fine_tuning_job(data: TrainingData, tunable: FineTunable) -> Job:
    """Set up the further training of a pretrained tier 1, on images in its own size.

    Its held-out loss is the log loss at the best temperature, as the fusion will fit one: a linear classifier of frozen
    features, which was not trained by smoothed labels, is compared with it.
    """

    def augmented(network: nn.Module, images: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return _classifier_loss(network, _as_pixels(shift_and_mirror(images, rng, data.mirror)), y, rng)

    def held_out(network: nn.Module) -> float:
        loss = float(tempered_losses(network, data).mean())
        check_finite("proposer", trainer.step, loss)
        return loss

    network = tunable.network.to(data.device)
    if data.device.type == "cpu":
        depthwise_in_float32(network)
    else:  # on a CPU it is no faster for the other layers, and oneDNN crashes on RepVGG's first one (torch 2.15)
        network = network.to(memory_format=torch.channels_last)
    images = torch.from_numpy(data.photos).to(data.device)
    config = TrainerConfig(
        batch_size=min(TUNING_BATCH, len(images)),
        learning_rate=TUNING_RATE,
        weight_decay=TUNING_WEIGHT_DECAY,
        ema_decay=0.999,
        bf16=has_bf16(data.device),
    )
    rates = tunable.learning_rates(LAYER_DECAY, LOWEST_RATE)
    trainer = Trainer(network, images, data.y, augmented, config, 0, data.settings.seed, rates=rates)
    return Job("proposer", trainer, held_out, {"label_smoothing": SMOOTHING, "layer_decay": LAYER_DECAY})


@torch.no_grad()
def tempered_losses(network: nn.Module, data: TrainingData) -> np.ndarray:
    """Log losses `[m]` of at most `CHECKED` held-out images in tier 1's size, at the best temperature."""
    checked = data.fit_on[:CHECKED]
    images, y = torch.from_numpy(data.held_out_photos[checked]), data.held_out_y.cpu().numpy()[checked]
    chunks = [network(_as_pixels(some.to(data.device))) for some in images.split(TUNING_BATCH)]
    log_prior = torch.cat(chunks).double().log_softmax(1).cpu().numpy()
    if not np.isfinite(log_prior).all():
        return np.full(len(y), np.nan)
    prior = Fusion().tempered(log_prior, y).prior(log_prior)
    return -np.log(np.clip(prior[np.arange(len(y)), y], np.finfo(float).tiny, None))


def _as_pixels(images: Tensor) -> Tensor:
    """Images `[B, H, W, 3]`, uint8, as `FineTunable` takes them, float `[B, 3, H, W]`."""
    return images.permute(0, 3, 1, 2).float()


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
    augment: Callable[[Tensor, torch.Generator], Tensor] = distort,
) -> Job:
    """Set up a training on augmented images, with held-out images as they are."""

    def augmented(network: nn.Module, pixels: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return loss(network, augment(data.encode(shift_and_mirror(pixels, rng, data.mirror)), rng), y, rng)

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
    return Job(name, trainer, held_out, options)


def worth_compiling(minutes: float, device: torch.device) -> bool:
    """Tell whether a training of so many minutes compiles its networks."""
    return _pays(minutes, device) and can_compile(device)


def _pays(minutes: float, device: torch.device) -> bool:
    """Tell whether compiling a network pays in so many minutes of its training."""
    return minutes >= COMPILE_FROM.get(device.type, math.inf)
