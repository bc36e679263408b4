"""Answers of methods and their cost; allocations are replayed from one table of recorded errors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hybridclf import Allocation, FixedTrials, Fusion, HybridClassifier
from hybridclf.denoising.weighting import uniform_weights
from hybridclf.metrics import Interval, accuracy, expected_calibration_error
from hybridclf.reranking.batches import Capacity, ReplayEvaluator
from hybridclf.reranking.loop import Loop
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window


@dataclass(frozen=True)
class Answers:
    """Posteriors `[n, C]` of n images, and evaluations and rows `[n]` spent on each.

    `calibrated` says whether the posteriors are meant as probabilities.
    """

    posterior: np.ndarray
    evaluations: np.ndarray
    rows: np.ndarray
    calibrated: bool = True

    @classmethod
    def free(cls, posterior: np.ndarray) -> "Answers":
        """Those of a classifier that asks no denoiser."""
        return cls(posterior, *np.zeros((2, len(posterior)), dtype=int))

    def __getitem__(self, part: slice) -> "Answers":
        return Answers(self.posterior[part], self.evaluations[part], self.rows[part], self.calibrated)

    def right(self, y: np.ndarray) -> np.ndarray:
        """True where an answer is right, bool `[n]`."""
        return self.posterior.argmax(axis=1) == y

    def summary(self, y: np.ndarray) -> dict[str, Any]:
        """Accuracy with its interval, calibration error, mean costs."""
        right = self.right(y)
        return {
            "n": len(y),
            "accuracy": spread(accuracy(right)),
            "ece": expected_calibration_error(self.posterior.max(axis=1), right) if self.calibrated else None,
            "evaluations": float(self.evaluations.mean()),
            "rows": float(self.rows.mean()),
        }


def spread(interval: Interval) -> list[float]:
    """An interval as [value, low, high]."""
    return [interval.value, interval.low, interval.high]


def hybrid(clf: HybridClassifier, images: np.ndarray) -> Answers:
    """The default hybrid's."""
    posterior, results = clf.decide(images)
    return Answers(posterior, *np.array([[r.evaluations, r.rows] for r in results]).T)


def record(clf: HybridClassifier, images: np.ndarray, n_trials: int) -> np.ndarray:
    """Unweighted errors of all classes, float32 `[n, n_trials, C]`, in the even order; all 0 if one is no number."""
    stage = clf.reranker(FixedTrials(n_trials), Fusion())
    stage.weighting = uniform_weights
    errors = np.zeros((len(images), n_trials, len(clf.classes_)), dtype=np.float32)
    results = stage.rerank(images, [clf.classes_.tolist()] * len(images))
    for table, result in zip(errors, results, strict=True):
        if result.stopped_by != "fallback":
            table[:] = result.evidence
    return errors


def weights(clf: HybridClassifier, n_trials: int) -> np.ndarray:
    """The classifier's own weights of these trials, `[n_trials, 1]`."""
    stage = clf.reranker(FixedTrials(n_trials), Fusion())
    return stage.weighting(*stage.levels())[:, None]


def recorded(clf: HybridClassifier, images: np.ndarray, n_trials: int, folder: Path, part: int = 50) -> np.ndarray:
    """The same as `record`, part by part, of which those that are in the folder already are read."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for first in tqdm(range(0, len(images), part), desc="record errors", unit="part"):
        chosen = images[first : first + part]
        path = folder / f"{first}-{first + len(chosen)}-{n_trials}.npy"
        if not path.exists():
            whole = path.with_suffix(".part.npy")
            np.save(whole, record(clf, chosen, n_trials))
            whole.replace(path)
        tables.append(np.load(path))
    return np.concatenate(tables)


def replay(errors: np.ndarray, log_prior: np.ndarray, allocation: Allocation, fusion: Fusion) -> Answers:
    """Run an allocation on recorded errors `[n, T, C]` under a prior `[n, C]`."""
    n, _, n_classes = errors.shape
    capacity = Capacity(512, 2**14)
    window = Window.for_batches(capacity, allocation.max_trials, n_classes)
    loop = Loop(allocation, fusion, ReplayEvaluator(errors), capacity, window)
    posterior, costs = np.empty((n, n_classes)), np.empty((2, n), dtype=int)
    tasks = [Task(i, tuple(range(n_classes)), prior) for i, prior in enumerate(log_prior)]
    for step in loop.run(tasks):
        for image, result in step.finished:
            posterior[image, list(result.candidates)] = result.posterior
            costs[:, image] = result.evaluations, result.rows
    return Answers(posterior, *costs, calibrated=fusion.calibrated)
