"""Resolution of the two tiers that a user gave: objects, spec strings that adapters load, or nothing."""

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
"""Adapters' names of the types that models compute in."""


def resolve_tiers(clf: Any) -> tuple[Any, Any]:
    """The proposer and the denoiser that a `HybridClassifier`'s parameters stand for; None for a tier to be trained.

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
    parameters = clf.get_params(deep=False)
    options = loader_options(parameters)
    proposer, denoiser = resolve_proposer(clf.proposer, options), resolve_denoiser(clf.denoiser, options)
    check_prompts_used(parameters, {"proposer": proposer, "denoiser": denoiser})
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


def loader_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options that adapters are offered, under their names, from a `HybridClassifier`'s parameters."""
    precision = _PRECISION.get(parameters["dtype"])
    return {"prompts": parameters["prompts"], "device": parameters["device"], "precision": precision}


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
    if hasattr(denoiser, "denoiser_"):
        raise InvalidTypeError(f"denoiser is a {type(denoiser).__name__}; pass its tier 2, its attribute denoiser_")
    if denoiser is not None and not callable(getattr(denoiser, "predict", None)):
        raise InvalidTypeError(f"denoiser must have the methods of hybridclf.Denoiser, got {denoiser!r}")
    return denoiser


def check_prompts_used(parameters: Mapping[str, Any], tiers: Mapping[plugins.Kind, Any]) -> None:
    """Check that prompts, if there are any, reach at least one of the tiers that were loaded by name.

    Raises
    ------
    InvalidInputError
        If not.
    """
    if parameters["prompts"] is None or any(_reads_prompts(k, parameters[k], tier) for k, tier in tiers.items()):
        return
    raise InvalidInputError(
        f"neither tier reads prompts, got prompts={parameters['prompts']!r}; they are for models of text that are "
        'named by a spec string, such as "open_clip:RN50-quickgelu/openai" or "diffusers:FOLDER"; an object is given '
        "them by its own loader"
    )


def _reads_prompts(kind: plugins.Kind, spec: Any, tier: Any) -> bool:
    """Tell if a tier was loaded by name and goes by prompts; some of an adapter's models go by class."""
    return isinstance(spec, str) and "prompts" in plugins.takes(kind, spec) and getattr(tier, "takes_prompts", True)
