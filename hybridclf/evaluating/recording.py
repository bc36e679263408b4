"""Recording of both tiers on labelled images, in one pass; every later question is answered from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.arrays import Items
from ..devices import precision_of
from ..errors import InvalidInputError
from ..estimator import HybridClassifier
from ..fitting import recording as labelled
from ..fitting.cross_fit import pixel_span, record_drift
from ..fitting.drift import DriftSample, looks_of
from ..metrics import group_numbers
from ..ports import Label
from ..proposer import aligned_log_proba
from ..reranking.allocation import FixedTrials
from ..reranking.fusion import Fusion
from ..utils.progress import progress_bar
from .errors_by_objective import AllErrors, objectives_of
from .storage import CHUNK, Arrays, RecordingFolder, digest_of

__all__ = ["Recording", "drift_of", "pixel_range", "record"]


_PLAIN = ("log_proba", "candidates")
"""Arrays of a recording by image that are kept, beside the errors."""


@dataclass(frozen=True)
class _Chunk:
    """Recording of a few images, with the attributes of `Recording`."""

    log_proba: np.ndarray
    candidates: np.ndarray
    errors: dict[str, np.ndarray]

    @property
    def arrays(self) -> Arrays:
        """The chunk as it is kept."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return own | {f"errors.{name}": table for name, table in self.errors.items()}

    @classmethod
    def of(cls, arrays: Arrays | None) -> "_Chunk | None":
        """The chunk that was kept; None if it was not, or is not whole."""
        if arrays is None or not set(_PLAIN) < arrays.keys():
            return None
        errors = {k.removeprefix("errors."): v for k, v in arrays.items() if k.startswith("errors.")}
        return cls(**{name: arrays[name] for name in _PLAIN}, errors=errors)


@dataclass(frozen=True)
class Recording:
    """Tier 1's log-probabilities and tier 2's errors of n labelled images.

    Trials are those of `reranking.trials.TrialPlan(T, shape, seed)`, in its even order: every prefix of them is nearly
    evenly spaced in time. The noise of trial j follows from (seed, the plan's order[j]).

    Attributes
    ----------
    classes : array `[C]`
        The labels.
    y : int array `[n]`
        Right classes.
    log_proba : float array `[n, C]`
        Tier 1's log-probabilities of all classes.
    novel : bool array `[n]`
        Vectors unlike all that the classifier was fitted on.
    candidates : int array `[n, k]`
        Classes that tier 2 was asked about: tier 1's first k, best first.
    errors : dict of str to float array `[n, T, k]`
        Unweighted errors of these candidates in T trials, by objective; not finite where tier 2 failed.
    t, alpha, sigma : float array `[T]`
        Times and noise levels of the trials.
    seed : int
        Decides the noise.
    n_prompts : int
        Prompts of each class: the evaluations that one error stands for.
    cost_unit : "row" or "evaluation"
        What the denoiser's cost is counted in: rows, or evaluations.
    groups : int array `[n]` or None
        Numbers of the groups of images that belong together; None if each is alone.
    looks : float array `[n, 5]` or None
        Looks of the images, by which a drift flattens tier 1's prior; None for anything but images of one size.
    pixel_range : (low, high) or None
        Pixel values of black and white in these looks.
    drift : DriftSample or None
        Tier 1's answers to corrupted copies of some of them, to fit a drift on.
    """

    classes: np.ndarray
    y: np.ndarray
    log_proba: np.ndarray
    novel: np.ndarray
    candidates: np.ndarray
    errors: dict[str, np.ndarray]
    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    seed: int
    n_prompts: int = 1
    cost_unit: str = "row"
    groups: np.ndarray | None = None
    looks: np.ndarray | None = None
    pixel_range: tuple[float, float] | None = None
    drift: DriftSample | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_trials(self) -> int:
        """Trials that were recorded, T."""
        return len(self.t)

    @property
    def labels(self) -> list[Label]:
        """The classes as a list."""
        return list(self.classes.tolist())

    @property
    def units(self) -> np.ndarray:
        """Numbers of the groups from 0 on, int `[n]`; an image without one is a group by itself."""
        return group_numbers(self.groups, len(self))

    @property
    def hit(self) -> np.ndarray:
        """True at the candidate that is the right class, bool `[n, k]`."""
        return self.candidates == self.y[:, None]

    def select(self, images: np.ndarray) -> "Recording":
        """The recording of some of the images, by bool `[n]` or position."""
        own: dict[str, Any] = {name: getattr(self, name)[images] for name in ("y", "novel", *_PLAIN)}
        own |= {name: value[images] for name in ("groups", "looks") if (value := getattr(self, name)) is not None}
        if self.drift is not None:
            own["drift"] = self.drift.select(images)
        return replace(self, **own, errors={name: table[images] for name, table in self.errors.items()})

    def first(self, n_trials: int) -> "Recording":
        """The recording of the first trials alone, which are nearly evenly spaced; all of them if there are fewer."""
        levels = {name: getattr(self, name)[:n_trials] for name in ("t", "alpha", "sigma")}
        return replace(self, **levels, errors={name: table[:, :n_trials] for name, table in self.errors.items()})

    def for_fitting(self, objective: str) -> labelled.Recording:
        """Images to fit a fusion to, for `fitting.calibration`: the right class is a candidate, all errors are finite.

        Raises
        ------
        InvalidInputError
            If there is no such image.
        """
        table = self.errors[objective]
        usable = self.hit.any(axis=1) & np.isfinite(table).all(axis=(1, 2))
        if not usable.any():
            raise InvalidInputError(
                "of no image for calibration the right class is among the candidates with finite errors; raise top_k "
                f"above {self.candidates.shape[1]}, or check the labels and what the denoiser predicts"
            )
        return labelled.Recording(
            log_prior=np.take_along_axis(self.log_proba, self.candidates, axis=1)[usable],
            errors=table[usable],
            t=self.t,
            alpha=self.alpha,
            sigma=self.sigma,
            y=self.hit[usable].argmax(axis=1),
            all_log_prior=self.log_proba,
            all_y=self.y,
            at=np.flatnonzero(usable),
            all_groups=self.groups,
            drift=self.drift,
        )


def pixel_range(clf: HybridClassifier, images: Any) -> tuple[float, float] | None:
    """Pixel values of black and white: those of the classifier's drift, else of the images.

    None for anything but images of one size, and for tiers that take any size, which have no drift.
    """
    span, learned = pixel_span(images), clf.calibration_
    if not clf._takes_arrays or span is None or min(images.shape[1:3]) < 2:
        return None
    return span if learned is None or learned.drift is None else learned.drift.pixel_range


def drift_of(
    clf: HybridClassifier, images: Any, y: np.ndarray, span: tuple[float, float] | None, progress: bool = False
) -> DriftSample | None:
    """Ask tier 1 about corrupted copies of some images, chosen by chance: data sets are often sorted by class.

    Parameters
    ----------
    clf : HybridClassifier
        The classifier.
    images : array `[n, H, W, C]`
        Images to calibrate on.
    y : int array `[n]`
        Their right classes.
    span : (low, high) or None
        Their `pixel_range`.
    progress : bool
        Show a progress bar.
    """
    if span is None:
        return None
    order = np.random.default_rng(clf._seed).permutation(len(images))
    made = record_drift(clf.proposer_, clf.classes_, images[order], y[order], span, clf._seed, progress)
    return made and made.select(np.argsort(order))


def record(
    clf: HybridClassifier,
    items: Items,
    y: np.ndarray,
    *,
    trials: int,
    top_k: int,
    objectives: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
    span: tuple[float, float] | None = None,
    folder: Path | None = None,
    progress: bool = False,
) -> Recording:
    """Ask both tiers about all images, chunk by chunk; chunks that the folder has are not asked again.

    Parameters
    ----------
    clf : HybridClassifier
        A fitted classifier; its seed decides the noise, so that what is replayed is what it would answer.
    items : Items
        n images as the classifier reads them.
    y : int array `[n]`
        Positions of the right classes.
    trials, top_k : int
        Trials T, and candidates k, of every image.
    objectives : sequence of str, optional
        Errors to record. Default: all that the denoiser can be asked for; they share its predictions.
    groups : int array `[n]`, optional
        Numbers of the groups of images that belong together. Default: each is alone.
    span : (low, high), optional
        Pixel values of black and white in the images' looks. Default: `pixel_range` of the images.
    folder : path, optional
        A new folder, or one in which the same recording was begun. Default: nothing is kept.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    InvalidInputError
        If the folder holds the recording of another model or of other data (the error says what differs), or cannot
        be written, or if no image has its right class among the candidates.
    """
    stage = clf.reranker(FixedTrials(trials), Fusion())
    ask = AllErrors(stage, clf.classes_, objectives or objectives_of(clf.denoiser_))
    k, positions = min(top_k, len(clf.classes_)), np.arange(trials)

    def chunk(index: np.ndarray, trials: np.ndarray) -> _Chunk:
        own = items.select(index)
        log_proba = aligned_log_proba(clf.proposer_, own, clf.classes_)
        candidates = np.argsort(-log_proba, axis=1, kind="stable")[:, :k]
        errors = dict(zip(ask.objectives, np.moveaxis(ask(own.images, candidates, trials), 3, 0), strict=True))
        return _Chunk(log_proba, candidates, errors)

    store = None if folder is None else RecordingFolder(folder, _manifest(clf, items, y, ask, k))
    if store is not None and (known := _Chunk.of(store.load(0))) is not None:
        now = chunk(np.arange(1), positions[:1])
        of_tier_2 = ((known.errors[name][:1, :1], errors) for name, errors in now.errors.items())
        store.check_model({"tier 1": [(known.log_proba[:1], now.log_proba)], "tier 2": of_tier_2})
    chunks = []
    with progress_bar(total=len(y), desc="record", unit="image", show=progress) as bar:
        for number, start in enumerate(range(0, len(y), CHUNK)):
            index = np.arange(start, min(start + CHUNK, len(y)))
            found = None if store is None else _Chunk.of(store.load(number))
            if found is None or len(found.log_proba) != len(index):
                found = chunk(index, positions)
                if store is not None:
                    store.save(number, found.arrays)
            chunks.append(found)
            bar.update(len(index))
    span = span or pixel_range(clf, items.images)
    looks = None if span is None else looks_of(items.images, *span)
    recording = replace(_joined(chunks, clf, items, y, stage, ask), groups=groups, looks=looks, pixel_range=span)
    if not recording.hit.any():
        raise InvalidInputError(
            f"no image has its right class among tier 1's first {k}: tier 2 cannot mend any; raise top_k, or check "
            "that labels and model belong together"
        )
    return recording


def _joined(
    chunks: list[_Chunk], clf: HybridClassifier, items: Items, y: np.ndarray, stage: Any, ask: AllErrors
) -> Recording:
    """All chunks as one recording."""
    t, alpha, sigma = stage.levels()
    plain: dict[str, Any] = {name: np.concatenate([getattr(c, name) for c in chunks]) for name in _PLAIN}
    return Recording(
        classes=clf.classes_,
        y=y,
        novel=clf._novel(items),  # not kept, as another fit of the same tiers says otherwise
        **plain,
        errors={name: np.concatenate([c.errors[name] for c in chunks]) for name in ask.objectives},
        t=t,
        alpha=alpha,
        sigma=sigma,
        seed=stage.plan.seed,
        n_prompts=ask.n_prompts,
        cost_unit=clf.denoiser_.cost_unit,
    )


def _manifest(clf: HybridClassifier, items: Items, y: np.ndarray, ask: AllErrors, k: int) -> dict[str, Any]:
    """All that decides what is recorded, but for the weights of the tiers, which are told by their answers."""
    return {
        "model": {
            "tier 1": type(clf.proposer_).__name__,
            "tier 2": type(clf.denoiser_).__name__,
            "type of numbers": precision_of(clf.denoiser_),
            "prompts per class": ask.n_prompts,
            "labels": list(map(str, clf.classes_.tolist())),
            "seed": ask.plan.seed,
        },
        "data": {"images": len(y), "pixels": digest_of(items.images), "right labels": digest_of(y)},
        "settings": {"trials": len(ask.plan), "candidates": k, "objectives": list(ask.objectives), "chunk": CHUNK},
        "probabilities": "tier 1's own",
    }
