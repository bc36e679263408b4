"""hybridclf: a fast classifier proposes, a diffusion classifier settles what it leaves open.

>>> from hybridclf import HybridClassifier
>>> clf = HybridClassifier.from_pretrained("digits")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .counterfactual import Counterfactual
    from .errors import (
        ClosedError,
        FallbackWarning,
        HybridClfError,
        InvalidInputError,
        InvalidTypeError,
        MissingDependencyError,
        QueueFullError,
        SavedModelError,
        TrainingError,
        UncalibratedWarning,
        UnknownLabelError,
        UnknownSpecError,
    )
    from .estimator import HybridClassifier
    from .evaluating.diffusion_features import DiffusionFeatures
    from .evaluating.evaluate import evaluate
    from .explanation import Explanation
    from .live.async_reranker import AsyncReranker
    from .pair_training.train_pair import train_pair
    from .ports import Denoiser, Proposer
    from .reranker import Reranker
    from .reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
    from .reranking.evidence import Evidence, RerankResult
    from .reranking.fusion import Fusion
    from .tuning.tune import tune
    from .zeroshot import zero_shot

_HOMES = {
    "counterfactual": ("Counterfactual",),
    "errors": (
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
    ),
    "estimator": ("HybridClassifier",),
    "evaluating.diffusion_features": ("DiffusionFeatures",),
    "evaluating.evaluate": ("evaluate",),
    "explanation": ("Explanation",),
    "live.async_reranker": ("AsyncReranker",),
    "pair_training.train_pair": ("train_pair",),
    "ports": ("Denoiser", "Proposer"),
    "reranker": ("Reranker",),
    "reranking.allocation": ("Allocation", "FixedTrials", "PairedTTest", "Race", "Staged"),
    "reranking.evidence": ("Evidence", "RerankResult"),
    "reranking.fusion": ("Fusion",),
    "tuning.tune": ("tune",),
    "zeroshot": ("zero_shot",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "AsyncReranker",
    "ClosedError",
    "Counterfactual",
    "Denoiser",
    "DiffusionFeatures",
    "Evidence",
    "Explanation",
    "FallbackWarning",
    "FixedTrials",
    "Fusion",
    "HybridClassifier",
    "HybridClfError",
    "InvalidInputError",
    "InvalidTypeError",
    "MissingDependencyError",
    "PairedTTest",
    "Proposer",
    "QueueFullError",
    "Race",
    "RerankResult",
    "Reranker",
    "SavedModelError",
    "Staged",
    "TrainingError",
    "UncalibratedWarning",
    "UnknownLabelError",
    "UnknownSpecError",
    "evaluate",
    "train_pair",
    "tune",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that `import hybridclf` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
