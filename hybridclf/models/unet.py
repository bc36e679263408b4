"""A late-conditioned U-Net for images."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

from .late_conditioned import ClassModulation, LateConditioned, TimeEmbedding, start_at_zero

__all__ = ["LateUNet"]


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions in which time enters as scale and shift."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * width)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        start_at_zero(self.conv2)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm2(self.conv1(F.silu(self.norm1(h)))) * (1 + scale) + shift
        return h + self.conv2(F.silu(inner))


class _Mixer(nn.Module):
    """Residual bottleneck over channels and positions together, by which every position sees every other."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(size, max(16, size // 8))
        self.widen = nn.Linear(max(16, size // 8), size)
        start_at_zero(self.widen)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.widen(F.silu(self.narrow(h.flatten(1)))).view_as(h)


ATTENTION_WIDTH = 32
"""Channels of each head of the attention."""


class _Attention(nn.Module):
    """Residual self-attention over positions, whose weights do not grow with the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.inlet = nn.Conv2d(width, 3 * width, 1)
        self.outlet = nn.Conv2d(width, width, 1)
        start_at_zero(self.outlet)

    def forward(self, h: Tensor) -> Tensor:
        n, width, *size = h.shape
        joint = self.inlet(self.norm(h)).flatten(2).transpose(1, 2)  # [R, H·W, 3·width]
        query, key, value = joint.unflatten(2, (3, -1, ATTENTION_WIDTH)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [R, heads, H·W, ATTENTION_WIDTH]
        return h + self.outlet(mixed.transpose(2, 3).reshape(n, width, *size))


class LateUNet(LateConditioned):
    """Late-conditioned U-Net of two or more resolutions.

    Parameters
    ----------
    shape : sequence of int
        (channels, height, width) of one encoded image; height and width divisible by patch · 2 ** (levels - 1).
    n_classes : int
        Number of classes.
    width : int
        Channels at full resolution, a multiple of 8; they double with every level.
    levels : int
        Number of resolutions, at least 2.
    head_width : int
        Channels of the head. They decide nearly all of an evaluation's cost beside its row's trunk.
    patch : int
        Side in pixels of a patch, which becomes one position of full resolution.
    depth : int
        Residual blocks per resolution on the way down, and as many on the way up; the lowest always has two.
    attention : bool
        Mix the positions of the lowest resolution by self-attention, whose width must be a multiple of 32. Otherwise by
        a dense layer, which grows with the square of the image.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        width: int = 32,
        levels: int = 2,
        head_width: int = 16,
        patch: int = 1,
        depth: int = 1,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.config = {
            "kind": "unet",
            "shape": list(shape),
            "n_classes": n_classes,
            "width": width,
            "levels": levels,
            "head_width": head_width,
            "patch": patch,
            "depth": depth,
            "attention": attention,
        }
        # a patch's pixels become channels (space to depth)
        channels, scale = shape[0] * patch**2, 2 ** (levels - 1)
        height, breadth = shape[1] // patch, shape[2] // patch
        widths, time_width = [width * 2**i for i in range(levels)], 4 * width
        self.patch = patch
        self.time = TimeEmbedding(time_width)
        self.inlet = nn.Conv2d(channels, width, 3, padding=1)
        self.down_blocks = _blocks(widths[:-1], depth, time_width)
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle = _Block(widths[-1], time_width)
        size = widths[-1] * (height // scale) * (breadth // scale)
        self.mixer = _Attention(widths[-1]) if attention else _Mixer(size)
        self.middle2 = _Block(widths[-1], time_width)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.up_blocks = _blocks(widths[-2::-1], depth, time_width)
        self.to_head = nn.Conv2d(width, head_width, 1)
        self.common = nn.Conv2d(width, channels, 3, padding=1)
        self.modulation = ClassModulation(n_classes, head_width)
        self.outlet = nn.Conv2d(head_width, channels, 1)
        start_at_zero(self.outlet)

    def trunk(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features `[R, head_width, h, w]` and class-free noise `[R, C, H, W]` of rows `[R, C, H, W]`.

        A position of the features is a patch: h = H / patch, w = W / patch. Times are `[R]`.
        """
        time = self.time(t)
        h, skips = self.inlet(F.pixel_unshuffle(x_t, self.patch)), []
        down_blocks, up_blocks = iter(self.down_blocks), iter(self.up_blocks)
        for down in self.downs:
            h = self._through(down_blocks, h, time)
            skips.append(h)
            h = down(h)
        h = self.middle2(self.mixer(self.middle(h, time)), time)
        for up in self.ups:
            h = self._through(up_blocks, up(h) + skips.pop(), time)
        return self.to_head(h), F.pixel_shuffle(self.common(h), self.patch)

    def _through(self, blocks: Iterator[nn.Module], h: Tensor, time: Tensor) -> Tensor:
        """Apply the next `depth` blocks, all of one resolution."""
        for block in islice(blocks, self.config["depth"]):
            h = block(h, time)
        return h

    def head(self, features: Tensor, label: Tensor) -> Tensor:
        """Compute the noise `[E, C, H, W]` from features `[E, head_width, h, w]` under classes `[E]`."""
        return F.pixel_shuffle(self.outlet(F.silu(self.modulation(features, label))), self.patch)


def _blocks(widths: Sequence[int], depth: int, time_width: int) -> nn.ModuleList:
    """Make `depth` blocks of each width, in the order of the widths."""
    return nn.ModuleList(_Block(width, time_width) for width in widths for _ in range(depth))
