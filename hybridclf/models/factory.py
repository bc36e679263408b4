"""Factory of networks from their saved configuration."""

from typing import Any

from .late_conditioned import LateConditioned
from .mlp import LateMLP
from .unet import LateUNet

__all__ = ["build"]


def build(config: dict[str, Any]) -> LateConditioned:
    """Build a network with fresh weights from a `config`: {"kind": "mlp" or "unet", …its arguments}."""
    arguments = dict(config)
    return {"mlp": LateMLP, "unet": LateUNet}[arguments.pop("kind")](**arguments)
