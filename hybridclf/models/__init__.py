"""Late-conditioned denoisers to train: one pass of the trunk serves every candidate of a row."""

from .denoiser import LateConditionedDenoiser
from .factory import build
from .late_conditioned import LateConditioned
from .mlp import LateMLP
from .unet import LateUNet

__all__ = ["LateConditioned", "LateConditionedDenoiser", "LateMLP", "LateUNet", "build"]
