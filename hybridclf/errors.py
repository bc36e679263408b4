"""The errors hybridclf raises, all of them small and all of them saying what to do.

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
    """A label that the model does not know."""


class UnknownSpecError(InvalidInputError):
    """A spec string that no installed adapter answers to."""


class InvalidTypeError(HybridClfError, TypeError):
    """An object of a kind that is not accepted here."""


class QueueFullError(HybridClfError, RuntimeError):
    """A live reranker has as many images as it may hold; ask again later."""


class ClosedError(HybridClfError, RuntimeError):
    """A live reranker that was closed, or whose loop has failed, takes no more images."""


class SavedModelError(HybridClfError, ValueError):
    """A folder that is not a saved model, or one that this version cannot read."""


class TrainingError(HybridClfError, RuntimeError):
    """A training that cannot start in this folder, go on from what is there, or write its checkpoint."""


class MissingDependencyError(HybridClfError, ImportError):
    """An optional package is needed and not installed."""


class UncalibratedWarning(UserWarning):
    """The posterior is no calibrated probability: nothing was calibrated, or for another tier 1."""


class FallbackWarning(UserWarning):
    """Tier 2 failed for most of the images, which have tier 1's answer."""


def choices(known: Sequence[Any], limit: int = 10) -> str:
    """A few of the things one may type, for a message."""
    listed = ", ".join(map(repr, known[:limit]))
    return listed if len(known) <= limit else f"{listed} and {len(known) - limit} more"
