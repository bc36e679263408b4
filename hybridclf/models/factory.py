"""Networks by their configuration, as it is saved beside the weights."""

from typing import Any

from .late import LateConditioned

__all__ = ["build"]


def build(config: dict[str, Any]) -> LateConditioned:
    """The network a `config` describes: {"kind": "mlp" or "unet", …its arguments}."""
    from .mlp import LateMLP
    from .unet import LateUNet

    arguments = dict(config)
    return {"mlp": LateMLP, "unet": LateUNet}[arguments.pop("kind")](**arguments)
