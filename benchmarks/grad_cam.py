"""Grad-CAM (arXiv 1610.02391) of CLIP's image tower: where tier 1 looks when it prefers one caption to another."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from hybridclf import HybridClassifier

__all__ = ["grad_cam", "map_of_clip"]


def grad_cam(score: Callable[[Tensor], Tensor], layer: nn.Module, pixels: Tensor) -> Tensor:
    """Map `[h, w]` of a layer's channels, each weighted by the mean of its gradient (Equations 1 and 2).

    Negative values stay: what speaks against the score.

    Parameters
    ----------
    score : function
        From pixels `[1, C, H, W]` to the number to explain; runs through the layer.
    layer : nn.Module
        Layer with an output `[1, K, h, w]`.
    pixels : Tensor `[1, C, H, W]`
        The network's input.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    handle = layer.register_forward_hook(keep)
    try:
        (gradient,) = torch.autograd.grad(score(pixels), kept)
    finally:
        handle.remove()
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    return (weight * kept[0].detach()).sum(dim=1)[0]


def map_of_clip(clf: HybridClassifier, picture: np.ndarray, a: str, b: str, stage: str) -> np.ndarray:
    """Map `[H, W]` of an RGB picture `[H, W, 3]`, for caption a against caption b, at a stage of the ResNet."""
    proposer = clf.proposer_
    first, second = (proposer.classes_.tolist().index(caption) for caption in (a, b))

    def score(pixels: Tensor) -> Tensor:
        logits = proposer._logits(pixels)[0]
        return logits[first] - logits[second]

    pixels = proposer.transform(Image.fromarray(picture))[None].to(proposer.device, proposer.dtype)
    small = grad_cam(score, getattr(proposer.model.visual, stage), pixels)
    return F.interpolate(small[None, None], picture.shape[:2], mode="bilinear", align_corners=False)[0, 0].cpu().numpy()
