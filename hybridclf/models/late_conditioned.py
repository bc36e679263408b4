"""Late conditioning: the class enters a light head only ("New architectures", Section 7 of arXiv 2303.16203)."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LateConditioned", "TimeEmbedding", "start_at_zero"]


class LateConditioned(nn.Module, ABC):
    """Base class of networks that predict noise by a trunk per row and a head per evaluation.

    Attributes
    ----------
    config : dict
        Arguments of `build` for the same network; plain JSON.
    """

    config: dict[str, Any]

    @abstractmethod
    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what all classes share, from rows `[R, *shape]` at times `[R]`.

        Returns
        -------
        features : Tensor `[R, …]`
            Input of the head.
        common : Tensor `[R, *shape]`
            Class-free part of the noise.
        """

    @abstractmethod
    def head(self, features: Tensor, label: Tensor) -> Tensor:
        """Compute the class's part of the noise `[E, *shape]` from features `[E, …]` and class numbers `[E]`."""

    def forward(self, x_t: Tensor, t: Tensor, row: Tensor, label: Tensor) -> Tensor:
        """Predict the noise `[E, *shape]` of evaluations (row, label), each `[E]`, of rows `[R, *shape]` at t `[R]`."""
        features, common = self.trunk(x_t, t)
        return common[row] + self.head(features[row], label)


N_FREQUENCIES = 16
"""Frequencies of the embedding of times."""


class TimeEmbedding(nn.Module):
    """Embedding `[R, width]` of times in (0, 1), `[R]`: Fourier features and one layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2 * N_FREQUENCIES, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Embed times `[R]` to `[R, width]`."""
        # computed in t's own type: the angle 2π · 8 · t has too few digits in bfloat16
        frequencies = 2 * math.pi * torch.linspace(0.25, 8, N_FREQUENCIES, dtype=t.dtype, device=t.device)
        angle = t[:, None] * frequencies
        weight = next(self.layer.parameters())
        return self.layer(torch.cat([angle.sin(), angle.cos()], dim=1).to(weight.dtype))


def start_at_zero(layer: nn.Module) -> None:
    """Zero the weight of a branch's last layer, so that the network starts as if the branch were absent.

    The layer is marked for `new_network`, which draws all weights again.
    """
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    layer.starts_at_zero = True  # type: ignore[assignment]


class ClassModulation(nn.Module):
    """Layer that scales and shifts `width` features by class number: `[E, width, …]` to the same shape."""

    STD = 0.3
    """Standard deviation of the initial scales and shifts."""

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_classes, 2 * width)
        nn.init.normal_(self.table.weight, std=self.STD)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        # [E, 2·width] -> scale and shift, each [E, width, 1, …], to broadcast over the positions of an image
        scale, shift = self.table(label).view(len(label), 2, -1, *(1,) * (features.ndim - 2)).unbind(1)
        return torch.addcmul(shift, features, 1 + scale)
