"""Evaluation of a pair on labelled images: both tiers recorded once, and every method replayed from it."""

from .evaluate import evaluate
from .report import Report

__all__ = ["Report", "evaluate"]
