"""Choice of the classifier by a command's options."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.datasets import DIGITS, typical_side
from ..errors import InvalidInputError, SavedModelError
from ..estimator import HybridClassifier
from ..evaluating.sample import TrainedOn
from ..models import LateConditionedDenoiser
from ..pair_training.start_from import known_images, trained_on
from ..persistence import read_description
from ..pretrained.catalog import DEFAULT_MODEL, model_folder
from ..proposer import is_trained, resolve_proposer

__all__ = ["behind", "choose_classifier", "images_trained_on", "tiers_trained_on"]

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
                "tiers by name come as a pair: give --proposer, --denoiser and --labels, without --model"
            )
        clf = HybridClassifier(proposer, denoiser, prompts=template, top_k=top_k, random_state=0)
        return clf.set_params(device=device or "auto").fit(None, labels)
    if model is None and labels is not None:
        raise InvalidInputError("--labels need a model to tell them apart: give --model, or --proposer and --denoiser")
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
    source: str | Path,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    device: str | None = None,
) -> HybridClassifier:
    """Put a model's denoiser behind another tier 1; its fusion is not fitted.

    A denoiser of this package averages images down from the size to which tier 1 resizes them, as far as the images of
    a source have that many pixels.

    Parameters
    ----------
    proposer : str
        Spec string of the tier 1.
    source : path
        Labelled images, as for `data.listing.list_labelled`.
    model, labels, template, device
        As for `choose_classifier`.

    Raises
    ------
    InvalidInputError
        For a model of numbers that are no photographs, and anything `HybridClassifier` refuses.
    """
    pair = choose_classifier(model, labels, device=device)
    denoiser = pair.denoiser_
    if pair.pixel_range_ not in (None, BYTES) or len(denoiser.shape) == 1:
        raise InvalidInputError(
            f"{model} is no model of photographs, with values of 0 to 255, as a tier 1 by name takes; give one that is"
        )
    tier_1 = resolve_proposer(proposer, {"device": "cpu"})
    if not is_trained(tier_1):
        raise InvalidInputError(
            f"{proposer!r} is a classifier that is not trained; name a trained one (timm:…, open_clip:…), or put "
            "your own before the model in Python, HybridClassifier(FrozenEstimator(own), clf.denoiser_).fit(X, y), "
            "save that and give its folder as --model"
        )
    parameters: dict[str, Any] = pair.get_params(deep=False) | {"proposer": proposer, "random_state": pair._seed}
    parameters["image_shape"] = pair.image_shape_
    if template is not None:
        parameters["prompts"] = template
    if not isinstance(pair.denoiser, str):
        parameters["denoiser"] = denoiser
    if isinstance(denoiser, LateConditionedDenoiser):
        parameters["image_shape"] = _shape_for(proposer, getattr(tier_1, "resize_side", None), denoiser, source)
    return HybridClassifier(**parameters).fit(None, pair.classes_.tolist())


def _shape_for(
    proposer: str, wanted: int | None, denoiser: LateConditionedDenoiser, source: str | Path
) -> tuple[int, ...]:
    """Shape (H, W, C) of the images for both tiers: the multiple of the denoiser's size that serves tier 1.

    The side `wanted` in pixels is what tier 1 takes; None if it does not say.
    """
    channels, *sides = denoiser.shape
    if wanted is None:
        warnings.warn(
            f"{proposer!r} does not say which size it takes (attribute resize_side), and sees images of "
            f"{'x'.join(map(str, sides))} pixels, as tier 2 does",
            stacklevel=2,
        )
        return (*sides, channels)
    # more pixels than the images have would only blur what tier 2 sees
    typical = 0 if source == DIGITS else typical_side(source)
    factor = max(1, min(-(-wanted // min(sides)), typical // min(sides)))
    return (*(factor * side for side in sides), channels)


def images_trained_on(model: str | Path | None) -> TrainedOn:
    """The images that a model was trained or calibrated on, as far as it says which those are."""
    folder = model_folder(model or DEFAULT_MODEL)
    shape = read_description(folder)["image_shape"]
    try:
        known = frozenset(known_images(folder).tolist())
        log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    except SavedModelError:
        return TrainedOn(frozenset(), None if shape is None else tuple(shape))
    shape = log.get("hashed_shape", shape)
    return TrainedOn(known, None if shape is None else tuple(shape))


def tiers_trained_on(model: str | Path | None) -> TrainedOn:
    """The images that a model's tiers were trained on, without those that its fusion alone was fitted on."""
    seen = images_trained_on(model)
    if not seen.known:
        return seen
    return seen._replace(known=frozenset(trained_on(model_folder(model or DEFAULT_MODEL)).tolist()))
