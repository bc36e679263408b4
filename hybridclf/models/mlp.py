"""A late-conditioned MLP for vectors and small images."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .late_conditioned import ClassModulation, LateConditioned, TimeEmbedding, start_at_zero

__all__ = ["LateMLP"]


class _Block(nn.Module):
    """Residual block in which time enters as scale and shift."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.time = nn.Linear(time_width, 2 * width)
        self.outer = nn.Linear(width, width)
        start_at_zero(self.outer)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time).chunk(2, dim=1)
        return h + self.outer(F.silu(self.inner(self.norm(h)) * (1 + scale) + shift))


class LateMLP(LateConditioned):
    """Late-conditioned residual MLP.

    Parameters
    ----------
    shape : sequence of int
        Shape of one encoded image or vector, which the network flattens.
    n_classes : int
        Number of classes.
    width : int
        Number of features in trunk and head.
    depth : int
        Number of residual blocks in the trunk.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.config = {"kind": "mlp", "shape": list(shape), "n_classes": n_classes, "width": width, "depth": depth}
        self.shape, size, time_width = tuple(shape), math.prod(shape), 128
        self.time = TimeEmbedding(time_width)
        self.inlet = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, time_width) for _ in range(depth))
        self.to_head = nn.Linear(width, width)
        self.time_to_head = nn.Linear(time_width, width)
        self.common = nn.Linear(width, size)
        self.modulation = ClassModulation(n_classes, width)
        self.outlet = nn.Linear(width, size)
        start_at_zero(self.outlet)

    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features `[R, width]` and class-free noise `[R, *shape]` of rows `[R, *shape]` at times `[R]`."""
        time = self.time(t)
        h = self.inlet(x_t.flatten(1))
        for block in self.blocks:
            h = block(h, time)
        return self.to_head(h) + self.time_to_head(time), self.common(h).view_as(x_t)

    def head(self, features: Tensor, label: Tensor) -> Tensor:
        """Compute the noise `[E, *shape]` from features `[E, width]` under classes `[E]`."""
        return self.outlet(F.silu(self.modulation(features, label))).view(len(label), *self.shape)
