"""A late-conditioned U-Net for images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .late import ClassModulation, LateConditioned, TimeEmbedding

__all__ = ["LateUNet"]


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions; time enters as scale and shift."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * width)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm2(self.conv1(F.silu(self.norm1(h)))) * (1 + scale) + shift
        return h + self.conv2(F.silu(inner))


class _Mixer(nn.Module):
    """Lets every position see every other, by a narrow layer over channels and positions together."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(size, max(16, size // 8))
        self.widen = nn.Linear(max(16, size // 8), size)
        nn.init.zeros_(self.widen.weight)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.widen(F.silu(self.narrow(h.flatten(1)))).view_as(h)


class LateUNet(LateConditioned):
    """Late-conditioned U-Net of two or more resolutions.

    Parameters
    ----------
    shape : sequence of int
        (channels, height, width) of one encoded image; height and width divisible by 2 ** (levels - 1).
    n_classes : int
        Number of classes.
    width : int
        Channels at full resolution, a multiple of 8; they double with every level.
    levels : int
        Number of resolutions, at least 2.
    head_width : int
        Channels of the head: nearly all that a pair costs beside its row's trunk.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, width: int = 32, levels: int = 2, head_width: int = 16
    ) -> None:
        super().__init__()
        self.config = {
            "kind": "unet",
            "shape": list(shape),
            "n_classes": n_classes,
            "width": width,
            "levels": levels,
            "head_width": head_width,
        }
        channels, height, breadth = shape
        widths, time_width = [width * 2**i for i in range(levels)], 4 * width
        self.time = TimeEmbedding(time_width)
        self.inlet = nn.Conv2d(channels, width, 3, padding=1)
        self.down_blocks = nn.ModuleList(_Block(w, time_width) for w in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        scale = 2 ** (levels - 1)
        self.middle = _Block(widths[-1], time_width)
        self.mixer = _Mixer(widths[-1] * (height // scale) * (breadth // scale))
        self.middle2 = _Block(widths[-1], time_width)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.up_blocks = nn.ModuleList(_Block(w, time_width) for w in reversed(widths[:-1]))
        self.to_head = nn.Conv2d(width, head_width, 1)
        self.common = nn.Conv2d(width, channels, 3, padding=1)
        self.modulation = ClassModulation(n_classes, head_width)
        self.outlet = nn.Conv2d(head_width, channels, 1)
        nn.init.zeros_(self.outlet.weight)

    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(features `[R, head_width, H, W]`, class-free noise `[R, C, H, W]`) of rows `[R, C, H, W]` at times `[R]`."""
        time = self.time(t)
        h, skips = self.inlet(x_t), []
        for block, down in zip(self.down_blocks, self.downs, strict=True):
            h = block(h, time)
            skips.append(h)
            h = down(h)
        h = self.middle2(self.mixer(self.middle(h, time)), time)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            h = block(up(h) + skips.pop(), time)
        return self.to_head(h), self.common(h)

    def head(self, features: Tensor, label: Tensor) -> Tensor:
        """Noise `[P, C, H, W]` from features `[P, head_width, H, W]` under classes `[P]`."""
        return self.outlet(F.silu(self.modulation(features, label)))
