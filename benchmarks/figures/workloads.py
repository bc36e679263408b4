"""Denoisers with images and labels to try them on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from hybridclf import Denoiser, HybridClassifier
from hybridclf.devices import has_bf16
from hybridclf.models import LateConditionedDenoiser, LateMLP, LateUNet
from hybridclf.ports import Label

__all__ = [
    "COMPILED",
    "SD_2_COMPILED",
    "SMALL_COMPILED",
    "WORKLOADS",
    "Workload",
    "digits_images",
    "digits_mlp",
    "late_mlp",
]

N_CLASSES = 10
UNET_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Workload:
    """A denoiser, and n images to compare C labels on; `ours` if the published loop is given another form of it."""

    denoiser: Denoiser
    images: Any
    labels: list[Label]
    ours: Denoiser | None = None

    @property
    def candidates(self) -> list[list[Label]]:
        """Every label for every image."""
        return [self.labels] * len(self.images)


def digits_images(n: int) -> np.ndarray:
    """n handwritten digits `[n, 8, 8]` that the embedded pair was not trained on, again and again beyond 450."""
    images, labels = load_digits().images, load_digits().target
    held_out = train_test_split(images, test_size=0.25, stratify=labels, random_state=0)[1]  # as in train_digits.py
    return held_out[np.arange(n) % len(held_out)]


def digits_mlp(n_images: int, device: torch.device) -> Workload:
    """The embedded digits pair's late-conditioned MLP, float64."""
    ours = HybridClassifier.from_pretrained("digits").denoiser_
    moved = LateConditionedDenoiser(ours.network, ours.classes, ours.mean, ours.scale, ours.dtype, device)
    return Workload(moved, digits_images(n_images), ours.classes.tolist())


def late_unet(n_images: int, device: torch.device) -> Workload:
    """A late-conditioned U-Net for 32x32 colour images, as `fit` would make it, float32, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _filled(LateUNet(UNET_SHAPE, N_CLASSES, levels=3))
    mean, scale = np.full(3, 128.0), np.full(3, 64.0)
    denoiser = LateConditionedDenoiser(network, range(N_CLASSES), mean, scale, device=device)
    return Workload(denoiser, _noise_images(n_images, UNET_SHAPE[1]), list(range(N_CLASSES)))


def stable_diffusion(layout: str, n_images: int, device: torch.device) -> Workload:
    """A text-conditional U-Net and a VAE, random weights; "SMALL": 8x8x4 latents, "SD_2": Stable Diffusion 2's size."""
    from . import stable_diffusion as sd

    sizes, labels = getattr(sd, layout), [f"thing {i}" for i in range(N_CLASSES)]
    return Workload(sd.denoiser(sizes, device), _noise_images(n_images, 8 * sizes.edge), labels)


def compiled_stable_diffusion(layout: str, n_images: int, device: torch.device) -> Workload:
    """The same, and on our side as one may set it up for a long job: compiled, in bfloat16 where the device has it."""
    from . import stable_diffusion as sd

    torch.compiler.reset()  # or a second size would be compiled for all sizes, which takes twice as long
    ours = sd.denoiser(getattr(sd, layout), device, "bf16" if has_bf16(device) else None)
    ours.compile()
    return replace(stable_diffusion(layout, n_images, device), ours=ours)


def late_mlp(n_classes: int, size: int, device: torch.device) -> Denoiser:
    """A late-conditioned MLP for vectors of that size, float64, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _filled(LateMLP((size,), n_classes))
    return LateConditionedDenoiser(network, range(n_classes), np.zeros(size), np.ones(size), torch.float64, device)


def _filled(network: nn.Module) -> Any:
    """The network with noise for the weights that start at zero: classes would not differ."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def _noise_images(n: int, edge: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, edge, edge, 3), dtype=np.uint8)


SMALL_COMPILED, SD_2_COMPILED = (f"{name}, ours compiled (bf16 if any)" for name in ("small SD", "SD 2 size"))
COMPILED = (SMALL_COMPILED, SD_2_COMPILED)

WORKLOADS: dict[str, Callable[[int, torch.device], Workload]] = {
    "digits MLP": digits_mlp,
    "late U-Net": late_unet,
    "small SD": partial(stable_diffusion, "SMALL"),
    SMALL_COMPILED: partial(compiled_stable_diffusion, "SMALL"),
    "SD 2 size": partial(stable_diffusion, "SD_2"),
    SD_2_COMPILED: partial(compiled_stable_diffusion, "SD_2"),
}
"""By name, from a number of images and a device. The last two are for a GPU."""
