"""Late conditioning: the class enters only a light head ("New architectures", Section 7 of arXiv 2303.16203)."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LateConditioned", "TimeEmbedding", "start_at_zero"]


class LateConditioned(nn.Module, ABC):
    """A network that predicts noise with a trunk per row and a head per pair.

    Attributes
    ----------
    config : dict
        What `build` needs to make the same network again; plain JSON.
    """

    config: dict[str, Any]

    @abstractmethod
    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(features `[R, …]` for the head, class-free part of the noise `[R, *shape]`), from `[R, *shape]`, `[R]`."""

    @abstractmethod
    def head(self, features: Tensor, label: Tensor) -> Tensor:
        """The class's part of the noise `[P, *shape]`, from features `[P, …]` and class numbers `[P]`."""

    def forward(self, x_t: Tensor, t: Tensor, row: Tensor, label: Tensor) -> Tensor:
        """Predicted noise `[P, *shape]` of the pairs (row, label), each `[P]`; x_t `[R, *shape]`, t `[R]`."""
        features, common = self.trunk(x_t, t)
        return common[row] + self.head(features[row], label)


class TimeEmbedding(nn.Module):
    """Fourier features of t in (0, 1), `[R]`, through one layer: `[R, width]`."""

    def __init__(self, width: int, n_frequencies: int = 16) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        self.layer = nn.Sequential(nn.Linear(2 * n_frequencies, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Embedding `[R, width]` of times `[R]`; the features are exact whatever the weights' type."""
        frequencies = 2 * math.pi * torch.linspace(0.25, 8, self.n_frequencies, dtype=t.dtype, device=t.device)
        angle = t[:, None] * frequencies
        weight = next(self.layer.parameters())
        return self.layer(torch.cat([angle.sin(), angle.cos()], dim=1).to(weight.dtype))


def start_at_zero(layer: nn.Module) -> None:
    """Set a layer's weight to zero, for the last layer of a branch: the network starts as if the branch were not there.

    The layer is marked, so that `new_network` knows.
    """
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    layer.starts_at_zero = True  # type: ignore[assignment]


class ClassModulation(nn.Module):
    """Scale and shift of `width` features by class number: `[P, width, …]` to the same shape."""

    STD = 0.3
    """Standard deviation of the first scales and shifts."""

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_classes, 2 * width)
        nn.init.normal_(self.table.weight, std=self.STD)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.table(label).view(len(label), 2, -1, *(1,) * (features.ndim - 2)).unbind(1)
        return torch.addcmul(shift, features, 1 + scale)
