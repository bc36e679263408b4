"""One call for pictures and words: `zero_shot`, with the arguments and the answer of transformers' pipeline."""

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
    """Which of these labels an image shows, as transformers' zero-shot-image-classification pipeline answers.

    Parameters
    ----------
    image : PIL image, path, uint8 array `[H, W]` or `[H, W, C]`, or list of them
        Of any size.
    candidate_labels : sequence of C str
        At least two different ones; one that repeats is answered under as many names, "crane (#0)" and "crane (#2)" by
        their positions, all with the same score.
    hypothesis_template : str, optional
        Makes a prompt of a label, with {} where the label goes. Default: what the model was saved with.
    model : str or path
        An embedded model whose tiers are models of text, by name, or the folder of a saved one. The one used last is
        kept in memory.

    Returns
    -------
    list of C dict, or list of such lists
        For each label {"score": float, "label": str}, highest score first; scores sum to one, and are probabilities if
        the model is calibrated. A list of them for a list of images.

    Raises
    ------
    InvalidInputError
        For what is no image, labels that the model cannot tell apart, a template without {}, or an unknown model.
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
    """A saved model; loaded anew once it was saved again."""
    return HybridClassifier.load(folder, prompts=template)


def _ranked(scores: list[float], labels: list[Any]) -> list[dict[str, Any]]:
    pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
    return [{"score": score, "label": label} for score, label in pairs]
