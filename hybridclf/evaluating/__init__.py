"""Does re-ranking pay? Both tiers recorded on labelled images once, and every method replayed from it."""

from .evaluate import evaluate
from .report import Report

__all__ = ["Report", "evaluate"]
