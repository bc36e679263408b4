"""From what the user gave to the two tiers: an object, what a spec string's adapter loads, or nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import plugins
from ..denoising.objectives import check_objective
from ..errors import InvalidInputError, InvalidTypeError
from ..proposer import resolve_proposer, with_labels
from .validation import check_labels

__all__ = ["check_prompts_used", "for_labels", "loader_options", "resolve_denoiser", "resolve_tiers"]

_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""What adapters call the types that models compute in."""


def resolve_tiers(clf: Any) -> tuple[Any, Any]:
    """The proposer and the denoiser that the parameters of a `HybridClassifier` stand for; None for one to be trained.

    Raises
    ------
    UnknownSpecError
        For a string that no adapter answers to.
    MissingDependencyError
        If a package that an adapter needs is not installed.
    InvalidTypeError
        For an object that is no such tier.
    InvalidInputError
        For prompts that neither tier reads, or an objective that the denoiser cannot be asked for.
    """
    options = loader_options(clf)
    proposer, denoiser = resolve_proposer(clf.proposer, options), resolve_denoiser(clf.denoiser, options)
    check_prompts_used(clf, proposer, denoiser)
    check_objective(clf.objective, denoiser)
    return proposer, denoiser


def for_labels(proposer: Any, denoiser: Any, labels: Any) -> tuple[Any, np.ndarray]:
    """The proposer (or a copy of it) asked about these labels, and the labels as classes `[C]`.

    Raises
    ------
    InvalidInputError
        For fewer than two different labels, an empty one, or some that a tier does not know or cannot tell apart.
    """
    classes = check_labels(labels)
    proposer = with_labels(proposer, classes)
    denoiser.condition(classes.tolist())  # what it cannot tell apart is refused now, not with the first image
    return proposer, classes


def loader_options(clf: Any) -> dict[str, Any]:
    """What adapters are offered: of a `HybridClassifier`'s parameters those that concern them, under their names."""
    return {"prompts": clf.prompts, "device": clf.device, "precision": _PRECISION.get(clf.dtype)}


def resolve_denoiser(denoiser: Any, options: Mapping[str, Any]) -> Any:
    """The denoiser that the parameter stands for: None to train one, a spec string's, or the object given.

    Raises
    ------
    UnknownSpecError
        For a string that no adapter answers to.
    InvalidTypeError
        For an object without `predict`.
    """
    if isinstance(denoiser, str):
        return plugins.offer("denoiser", denoiser, options)
    if denoiser is not None and not callable(getattr(denoiser, "predict", None)):
        raise InvalidTypeError(f"denoiser must have the methods of hybridclf.Denoiser, got {denoiser!r}")
    return denoiser


def check_prompts_used(clf: Any, proposer: Any, denoiser: Any) -> None:
    """Check that prompts, if there are any, reach one of the loaded tiers at least.

    Raises
    ------
    InvalidInputError
        If not.
    """
    reads = _reads_prompts("proposer", clf.proposer, proposer) or _reads_prompts("denoiser", clf.denoiser, denoiser)
    if clf.prompts is not None and not reads:
        raise InvalidInputError(
            f"neither tier reads prompts, got prompts={clf.prompts!r}; they are for models of text that are named by a "
            'spec string, such as "open_clip:RN50-quickgelu/openai" or "diffusers:FOLDER"; an object is given them by '
            "its own loader"
        )


def _reads_prompts(kind: plugins.Kind, spec: Any, tier: Any) -> bool:
    """Whether a tier was loaded by name and goes by prompts; of an adapter's models some may go by class."""
    return isinstance(spec, str) and "prompts" in plugins.takes(kind, spec) and getattr(tier, "takes_prompts", True)
