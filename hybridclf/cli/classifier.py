"""Choice of the classifier by a command's options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, SavedModelError
from ..estimator import HybridClassifier
from ..evaluating.sample import TrainedOn
from ..models import LateConditionedDenoiser
from ..pair_training.start_from import trained_on
from ..persistence import read_description
from ..pretrained.catalog import DEFAULT_MODEL, model_folder
from ..proposer import resolve_proposer

__all__ = ["behind", "choose_classifier", "images_trained_on"]

BYTES = (0.0, 255.0)
"""Range of the values of photographs."""


def choose_classifier(
    model: str | Path | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    proposer: str | None = None,
    denoiser: str | None = None,
    top_k: int | None = None,
    device: str | None = None,
) -> HybridClassifier:
    """Make a fitted classifier of an embedded or saved model, or of two tiers by their spec strings.

    Parameters
    ----------
    model : str or path, optional
        Name of an embedded model, or the folder of a saved one. Default: `catalog.DEFAULT_MODEL`.
    labels : sequence of C str, optional
        Labels to choose from. Default: the model's own.
    template : str, optional
        Prompt template, with {} in place of the label. Default: the model's own.
    proposer, denoiser : str, optional
        Spec strings of both tiers, in place of a model.
    top_k : int, optional
        Number of candidates. Default: the model's own.
    device : str, optional
        "auto", or torch's name of the device. Default: the model's own.

    Returns
    -------
    HybridClassifier

    Raises
    ------
    InvalidInputError
        For a repeated label, labels without a model, a model beside spec strings, one spec string without the other or
        without labels, and anything `HybridClassifier` refuses.
    """
    if labels is not None and len(set(labels)) < len(labels):  # surely a typing error
        raise InvalidInputError(f"labels must be at least two different names, got one of them twice: {labels!r}")
    if proposer is not None or denoiser is not None:
        if proposer is None or denoiser is None or labels is None or model is not None:
            raise InvalidInputError(
                "tiers by name come as a pair, with labels and without a model: give proposer, denoiser and labels; "
                "only evaluate and calibrate put a proposer before a model's denoiser, for a proposer and model"
            )
        clf = HybridClassifier(proposer, denoiser, prompts=template, top_k=top_k, random_state=0)
        return clf.set_params(device=device or "auto").fit(None, labels)
    if model is None and labels is not None:
        raise InvalidInputError("labels need a model to tell them apart: give one, or a proposer and a denoiser")
    clf = HybridClassifier.from_pretrained(model or DEFAULT_MODEL, prompts=template, device=device)
    if top_k is not None:
        clf.set_params(top_k=top_k)
    if labels is None:
        return clf
    # the classifier's own labels may be numbers, typed as text
    known = {str(label): label for label in clf.classes_.tolist()}
    return clf.with_labels([known.get(label, label) for label in labels])


def behind(
    proposer: str,
    model: str | Path,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    device: str | None = None,
) -> HybridClassifier:
    """Put a model's denoiser behind another tier 1; its fusion is not fitted.

    A denoiser of this package averages images down from the size that tier 1 takes, or the next multiple of its own.

    Parameters
    ----------
    proposer : str
        Spec string of the tier 1.
    model, labels, template, device
        As for `choose_classifier`.

    Raises
    ------
    InvalidInputError
        For a model of numbers that are no photographs, and anything `HybridClassifier` refuses.
    """
    pair = choose_classifier(model, labels, device=device)
    if pair.pixel_range_ not in (None, BYTES):
        raise InvalidInputError(
            f"{model} takes values of {pair.pixel_range_[0]:g} to {pair.pixel_range_[1]:g}, and a tier 1 by name takes "
            "photographs; give a model of photographs"
        )
    parameters: dict[str, Any] = pair.get_params(deep=False) | {"proposer": proposer, "image_shape": pair.image_shape_}
    if template is not None:
        parameters["prompts"] = template
    if not isinstance(pair.denoiser, str):
        parameters["denoiser"] = pair.denoiser_
    if isinstance(denoiser := pair.denoiser_, LateConditionedDenoiser):
        wanted = getattr(resolve_proposer(proposer, {"device": "cpu"}), "feature_side", 0)
        channels, *sides = denoiser.shape
        parameters["image_shape"] = (*(max(1, -(-wanted // side)) * side for side in sides), channels)
    return HybridClassifier(**parameters).fit(None, pair.classes_.tolist())


def images_trained_on(model: str | Path | None) -> TrainedOn | None:
    """The images that a model was trained on; None if it does not say which those are."""
    folder = model_folder(model or DEFAULT_MODEL)
    try:
        return TrainedOn(trained_on(folder), read_description(folder)["image_shape"])
    except SavedModelError:
        return None
