"""HybridClassifier, by subject: parameters, what it reads, how it is fitted, predicts and explains; and the class."""

from .classifier import HybridClassifier

__all__ = ["HybridClassifier"]
