"""A small convolutional network for small images, registered with timm as "whitened_convnet"."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from hybridclf.devices import mixed_precision

__all__ = ["ConvNet", "whitened_convnet"]

default_cfgs = generate_default_cfgs(
    {"whitened_convnet.untrained": {"input_size": (3, 32, 32), "first_conv": "stem", "classifier": "head"}}
)

PATCH = 2
"""Side in pixels of the patches that the stem whitens."""

SMALLEST_VARIANCE = 5e-2
"""Variance that is added to that of every pattern, so that patterns which hardly occur are not blown up.

With 5e-4, as in the paper, faint noise ends all: see `hybridclf.training.augmentation.add_noise`.
"""


class ConvNet(nn.Module):
    """Convolutional network of a stem that whitens patches, and groups of two 3x3 convolutions that halve the image.

    It takes small images as they are. After a minute of one processor core on 5,000 images of CIFAR-10 it was right for
    58 % of test images; "small", a ResNet to which they are enlarged, for 44 %, with the same optimiser and schedule.

    Parameters
    ----------
    num_classes : int
        Number of classes; 0 leaves out the head.
    in_chans : int
        Channels of the images.
    widths : sequence of int
        Channels of the groups; images have at least 2 ** len(widths) + 1 pixels a side.
    mirrored : bool
        In evaluation, the logits are means over the image and its mirrored view.

    Attributes
    ----------
    mixed : bool
        In evaluation, multiply in bfloat16 on a processor that does so natively, if weights and images are in float32.

    References
    ----------
    K. Jordan, arXiv 2404.00498: the whitening stem, the groups, their identity initialisation, the mirrored view.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        widths: Sequence[int] = (16, 32, 64),
        mirrored: bool = False,
        **_: Any,  # timm hands on what other networks take, such as global_pool
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.mirrored, self.mixed = num_classes, in_chans, mirrored, False
        self.num_features = self.head_hidden_size = widths[-1]
        stem_width = 2 * in_chans * PATCH**2  # every pattern of a patch, and its opposite
        self.stem = nn.Conv2d(in_chans, stem_width, PATCH)
        pairs = zip([stem_width, *widths[:-1]], widths, strict=True)
        self.groups = nn.Sequential(*(_Group(before, after) for before, after in pairs))
        self.reset_classifier(num_classes)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the stem to the principal patterns of patches, each scaled to unit variance, and keep it so in training.

        Parameters
        ----------
        images : Tensor `[n, C, H, W]`
            Training images as the network gets them.
        """
        patches = F.unfold(images, PATCH).transpose(1, 2).flatten(0, 1).double()  # [n · positions, C · 2 · 2]
        variance, patterns = torch.linalg.eigh(patches.T.cov(correction=0))  # a pattern is a column
        whitening = (patterns / (variance + SMALLEST_VARIANCE).sqrt()).T.unflatten(1, self.stem.weight.shape[1:])
        self.stem.weight.copy_(torch.cat([whitening, -whitening]))
        self.stem.weight.requires_grad_(False)
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute features `[B, F, h, w]` of images `[B, C, H, W]`."""
        return self.groups(F.gelu(self.stem(x)))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits `[B, num_classes]` from features, or the pooled features `[B, F]`."""
        pooled = features.amax((2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits `[B, num_classes]` of images `[B, C, H, W]`."""
        views = [x] if self.training or not self.mirrored else [x, x.flip(-1)]
        with mixed_precision(x, self.mixed and not self.training):
            features = [self.forward_features(view) for view in views]
        # the head in the image's type: two classes may be closer than bfloat16 can tell
        return torch.stack([self.forward_head(f.to(x.dtype)) for f in features]).mean(dim=0)

    def get_classifier(self) -> nn.Module:
        """The head, as timm's networks have it."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a new head."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


class _Group(nn.Sequential):
    """Two 3x3 convolutions, the image halved after the first."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            _convolution(before, after), nn.MaxPool2d(2), *_norm(after), _convolution(after, after), *_norm(after)
        )


def _convolution(before: int, after: int) -> nn.Conv2d:
    """A 3x3 convolution whose first outputs are its inputs, as far as there are."""
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:before])
    return layer


def _norm(width: int) -> tuple[nn.Module, nn.Module]:
    """Batch normalisation that learns no scale, and the activation."""
    norm = nn.BatchNorm2d(width, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm, nn.GELU()


@register_model
def whitened_convnet(pretrained: bool = False, **kwargs: Any) -> ConvNet:
    """Make a `ConvNet`; timm calls this for "whitened_convnet"."""
    return build_model_with_cfg(ConvNet, "whitened_convnet", pretrained, **kwargs)
