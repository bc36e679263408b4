"""First weights of a new network, from a generator of its own."""

import math
from typing import Any

import torch
from torch import nn

from .factory import build
from .late import ClassModulation, LateConditioned

__all__ = ["new_network"]


def new_network(config: dict[str, Any], seed: int) -> LateConditioned:
    """A network with fresh weights that depend on the seed alone.

    torch's global generator is neither read nor moved, so that several threads may make networks at a time. The weights
    are those that the constructor would draw after `torch.manual_seed(seed)`.

    Parameters
    ----------
    config : dict
        As for `build`.
    seed : int
        Decides the weights.
    """
    with torch.device("meta"):  # where nothing is drawn
        network = build(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        _initialize(module, generator)
    return network


@torch.no_grad()
def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Give a layer torch's usual first weights, and those that start at zero their zeros."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        fan_in = nn.init._calculate_fan_in_and_fan_out(module.weight)[0]
        assert module.bias is not None
        nn.init.uniform_(module.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
        if getattr(module, "starts_at_zero", False):
            nn.init.zeros_(module.weight)
    elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
        module.reset_parameters()
    elif isinstance(module, ClassModulation):
        for std in (1.0, ClassModulation.STD):  # the constructor draws twice
            nn.init.normal_(module.table.weight, std=std, generator=generator)
