"""Factory of networks from their saved configuration."""

from typing import Any

from .late_conditioned import LateConditioned

__all__ = ["build"]


def build(config: dict[str, Any]) -> LateConditioned:
    """Build a network with fresh weights from a `config`: {"kind": "mlp" or "unet", …its arguments}."""
    from .mlp import LateMLP
    from .unet import LateUNet

    arguments = dict(config)
    return {"mlp": LateMLP, "unet": LateUNet}[arguments.pop("kind")](**arguments)
