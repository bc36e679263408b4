"""Zero-shot classification in one call, with the arguments and answers of transformers' pipeline."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .data.image_files import check_image_shape
from .estimator import HybridClassifier
from .pretrained.catalog import model_folder

__all__ = ["zero_shot"]


def zero_shot(
    image: Any,
    candidate_labels: Sequence[str],
    hypothesis_template: str | None = None,
    *,
    model: str | Path,
) -> Any:
    """Classify an image by labels, with the answer of transformers' zero-shot-image-classification pipeline.

    Parameters
    ----------
    image : PIL image, path, uint8 array `[H, W]` or `[H, W, C]`, or list of them
        Image of any size, or a list of images.
    candidate_labels : sequence of C str
        At least two different labels. A repeated label gets a name per position, "crane (#0)" and "crane (#2)", with
        equal scores.
    hypothesis_template : str, optional
        Prompt template, with {} in place of the label. Default: the saved model's own.
    model : str or path
        Name of an embedded model, or the folder of a saved one, whose tiers read text. The last one stays in memory.

    Returns
    -------
    list of C dict, or list of such lists
        {"score": float, "label": str} for each label, highest score first. Scores sum to one, and are probabilities if
        the model is calibrated. A list of images gives a list of answers.

    Raises
    ------
    InvalidInputError
        For an unusable image, labels that the model cannot distinguish, a template without {}, or an unknown model.
    SavedModelError
        If the model cannot be read.

    Examples
    --------
    >>> zero_shot("scan.png", ["a red circle", "a blue square"], model="my-pair/")  # doctest: +SKIP
    [{'score': 0.98, 'label': 'a red circle'}, {'score': 0.02, 'label': 'a blue square'}]
    """
    images = list(image) if isinstance(image, list | tuple) else [image]
    if not images:
        return []
    clf = _model(model_folder(model), hypothesis_template).with_labels(candidate_labels)
    check_image_shape(clf.image_shape_)
    posterior = clf.predict_proba(images)
    answers = [_ranked(row, clf.classes_.tolist()) for row in posterior.tolist()]
    return answers if isinstance(image, list | tuple) else answers[0]


def _model(folder: Path, template: str | None) -> HybridClassifier:
    saved = folder / "model.json"
    return _load(folder.resolve(), template, saved.stat().st_mtime_ns if saved.exists() else 0)


@lru_cache(maxsize=1)
def _load(folder: Path, template: str | None, saved_at: int) -> HybridClassifier:
    """Load a saved model; its time of saving is part of the cache's key, so a newer one is loaded anew."""
    return HybridClassifier.load(folder, prompts=template)


def _ranked(scores: list[float], labels: list[Any]) -> list[dict[str, Any]]:
    ranked = sorted(zip(scores, labels, strict=True), key=lambda scored: -scored[0])
    return [{"score": score, "label": label} for score, label in ranked]
