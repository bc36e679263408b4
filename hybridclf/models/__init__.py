"""Denoisers we train ourselves: late-conditioned, so that one trunk pass serves every candidate of a row."""

from .denoiser import LateConditionedDenoiser
from .late import LateConditioned, build
from .mlp import LateMLP
from .unet import LateUNet

__all__ = ["LateConditioned", "LateConditionedDenoiser", "LateMLP", "LateUNet", "build"]
