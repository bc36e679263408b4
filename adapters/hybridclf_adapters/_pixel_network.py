"""Pretrained network that takes pixels of any size, to be trained further."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = ["PixelNetwork"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image, as in Pillow."""


class PixelNetwork(nn.Module):
    """Network of RGB images in [0, 255], which it stretches to its size and standardises.

    It stays in evaluation when it is trained: statistics of batch normalisation are fixed and nothing is dropped out.

    Parameters
    ----------
    network : nn.Module
        Network of standardised images; it is changed to float32, and its parameters require gradients from now on.
    size : (int, int)
        Height and width of its images.
    mean, std : sequences of floats in [0, 1]
        Statistics that its images are standardised by, one of each for a network of grey images.
    interpolation : str
        "bilinear"; any other name stands for bicubic.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str,
    ) -> None:
        super().__init__()
        self.network: Any = network.float().requires_grad_(True)
        self.size, self.mode = size, "bilinear" if interpolation == "bilinear" else "bicubic"
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits `[B, C]` of RGB images `[B, 3, H, W]`, float in [0, 255]."""
        for module in self.network.modules():
            # TinyViT and EfficientViT keep attention biases in evaluation, which would be those of earlier weights
            getattr(module, "attention_bias_cache", {}).clear()
        if len(self.mean) == 1:
            pixels = (pixels * pixels.new_tensor(LUMA).view(-1, 1, 1)).sum(dim=1, keepdim=True)
        # antialiased, as Pillow does it for the features
        pixels = interpolate(pixels, self.size, mode=self.mode, antialias=True).clamp(0, 255)
        return self.network((pixels - self.mean) / self.std)

    def learning_rates(self, decay: float, lowest: float) -> Mapping[str, float]:
        """Factors on the learning rate, by timm's layers; see `FineTunable`."""
        from timm.optim import param_groups_layer_decay

        names = {id(parameter): name for name, parameter in self.named_parameters()}
        groups = param_groups_layer_decay(self.network, layer_decay=decay, min_scale=lowest)
        return {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
