"""HybridClassifier, by subject: its parameters, what it reads, how it is fitted, how it predicts; and the class."""

from .classifier import HybridClassifier

__all__ = ["HybridClassifier"]
