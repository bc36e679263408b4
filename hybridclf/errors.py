"""Errors and warnings of hybridclf. Every message says what was wrong and what to do.

HybridClfError
├── InvalidInputError (ValueError)      images, labels or parameters that cannot be used
│   ├── UnknownLabelError               a label that the model does not know
│   └── UnknownSpecError                a spec string such as "open_clip:…" that no adapter answers to
├── InvalidTypeError (TypeError)        an object of a kind that is not accepted
├── QueueFullError (RuntimeError)        a live reranker has as many images as it may hold
├── ClosedError (RuntimeError)           a live reranker that takes no more images
├── SavedModelError (ValueError)        a folder that is not a saved model, or one this version cannot read
├── TrainingError (RuntimeError)        a training that cannot start, go on or be kept
└── MissingDependencyError (ImportError) an optional package is not installed
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ClosedError",
    "FallbackWarning",
    "HybridClfError",
    "InvalidInputError",
    "InvalidTypeError",
    "MissingDependencyError",
    "QueueFullError",
    "SavedModelError",
    "TrainingError",
    "UncalibratedWarning",
    "UnknownLabelError",
    "UnknownSpecError",
    "choices",
]


class HybridClfError(Exception):
    """Base of every error that hybridclf raises on purpose."""


class InvalidInputError(HybridClfError, ValueError):
    """Images, labels or parameters that cannot be used as given."""


class UnknownLabelError(InvalidInputError):
    """Label that the model does not know."""


class UnknownSpecError(InvalidInputError):
    """Spec string without an installed adapter."""


class InvalidTypeError(HybridClfError, TypeError):
    """Object of a type that is not accepted."""


class QueueFullError(HybridClfError, RuntimeError):
    """Full live reranker: it holds as many images as it may, so ask again later."""


class ClosedError(HybridClfError, RuntimeError):
    """Closed live reranker, or one whose loop has failed: it takes no more images."""


class SavedModelError(HybridClfError, ValueError):
    """Folder that is no saved model, or that this version cannot read."""


class TrainingError(HybridClfError, RuntimeError):
    """Training that cannot start, resume or write its files, or that diverged."""


class DivergedError(TrainingError):
    """Training whose loss is not finite."""


class MissingDependencyError(HybridClfError, ImportError):
    """Missing optional package."""


class UncalibratedWarning(UserWarning):
    """Uncalibrated posterior: nothing was calibrated, or for another tier 1."""


class FallbackWarning(UserWarning):
    """Failure of tier 2 on most of the images, which get tier 1's answer."""


def choices(known: Sequence[Any], limit: int = 10) -> str:
    """List the first `limit` accepted values for a message."""
    listed = ", ".join(map(repr, known[:limit]))
    return listed if len(known) <= limit else f"{listed} and {len(known) - limit} more"
