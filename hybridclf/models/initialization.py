"""Initial weights of a network, from a generator of its own."""

import math
from typing import Any

import torch
from torch import nn

from .factory import build
from .late_conditioned import ClassModulation, LateConditioned

__all__ = ["new_network"]


def new_network(config: dict[str, Any], seed: int) -> LateConditioned:
    """Make a network with fresh weights that depend on the seed alone.

    torch's global generator is neither read nor moved, so several threads may make networks at a time. The weights
    equal a constructor's after `torch.manual_seed(seed)`.

    Parameters
    ----------
    config : dict
        Configuration for `build`.
    seed : int
        Seed of the weights.

    Returns
    -------
    LateConditioned
        On the CPU.
    """
    with torch.device("meta"):  # constructors draw no numbers on this device
        network = build(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        _initialize(module, generator)
    return network


@torch.no_grad()
def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw a layer's weights by torch's default rule, and zero the layers marked by `start_at_zero`."""
    # each branch draws as often, and in the same order, as the layer's own constructor
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
        for std in (1.0, ClassModulation.STD):  # the constructor draws twice: nn.Embedding's default, then its own
            nn.init.normal_(module.table.weight, std=std, generator=generator)
