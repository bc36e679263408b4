"""The classifier that a command's options name."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..ports import Label
from ..pretrained.catalog import DEFAULT_MODEL

__all__ = ["choose_classifier"]


def choose_classifier(
    model: str | Path | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    proposer: str | None = None,
    denoiser: str | None = None,
    top_k: int | None = None,
    device: str | None = None,
) -> HybridClassifier:
    """A classifier that is ready: two tiers by name, a saved model or an embedded one, asked about labels.

    Parameters
    ----------
    model : str or path, optional
        An embedded model or the folder of a saved one. Default: `catalog.DEFAULT_MODEL`; labels need one.
    labels : sequence of C str, optional
        Labels to tell apart. Default: the model's own.
    template : str, optional
        Makes a prompt of a label; default: the model's own.
    proposer, denoiser : str, optional
        Spec strings of both tiers, in place of a model.
    top_k : int, optional
        Candidates that tier 1 hands over; default: as many as the model has it.
    device : str, optional
        "auto", or what torch calls it; default: the model's own.

    Raises
    ------
    InvalidInputError
        For a label twice, labels without a model, a model beside spec strings, one of these without the other or
        without labels, and whatever `HybridClassifier` refuses.
    """
    if labels is not None and len(set(labels)) < len(labels):  # a slip, where names are typed
        raise InvalidInputError(f"labels must be at least two different names, got one of them twice: {labels!r}")
    if proposer is not None or denoiser is not None:
        if proposer is None or denoiser is None or labels is None or model is not None:
            raise InvalidInputError(
                "tiers by name come as a pair, with labels and without a model: give proposer, denoiser and labels"
            )
        clf = HybridClassifier(proposer, denoiser, prompts=template, top_k=top_k, random_state=0)
        return clf.set_params(device=device or "auto").fit(None, labels)
    if model is None and labels is not None:
        raise InvalidInputError("labels need a model to tell them apart: give one, or a proposer and a denoiser")
    clf = HybridClassifier.from_pretrained(model or DEFAULT_MODEL, prompts=template, device=device)
    if top_k is not None:
        clf.set_params(top_k=top_k)
    return clf if labels is None else clf.with_labels(_own(labels, clf))


def _own(labels: Sequence[str], clf: HybridClassifier) -> list[Label]:
    """Labels as the classifier has them, numbers for example; others as they are."""
    known = {str(label): label for label in clf.classes_.tolist()}
    return [known.get(label, label) for label in labels]
