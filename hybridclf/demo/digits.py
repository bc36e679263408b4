"""Demonstration on scikit-learn's handwritten digits: every method on the same weights and test images."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from .. import __version__, metrics
from ..estimator import HybridClassifier
from ..proposer import rows_of
from ..reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from ..reranking.evidence import RerankResult
from ..reranking.fusion import Fusion
from ..utils.progress import progress_bar
from . import plots
from .races import watch
from .report import Reliability, Report, Row

__all__ = ["ALLOCATIONS", "HYBRID", "RIVAL", "TIER_1", "Answers", "Digits", "methods", "run", "split_digits", "write"]

ALLOCATIONS: Mapping[str, Allocation] = {
    "tier 2: FixedTrials 256": FixedTrials(256),
    "tier 2: Staged (5,1)/(50,250)": Staged((5, 1), (50, 250)),
    "tier 2: PairedTTest .002, min 5": PairedTTest(p=0.002, min_trials=5),
}
"""Allocations of tier 2 alone, over all classes and without a prior, by the name of the table's row."""

TIER_1 = "tier 1: logistic regression"
RIVAL = "RBF-SVC"
HYBRID = f"hybrid: Race {Race().confidence}"

T = TypeVar("T")

MIN_SECONDS = 0.2
"""Shortest timing in seconds; a faster method is called several times."""

PER_BIN, MAX_BINS = 50, 10
"""Images in a bin of the reliability diagram, at least, and bins, at most."""


@dataclass(frozen=True)
class Digits:
    """Digits in two halves: images `[n, 8, 8]` from 0 to 16, labels `[n]`, and the test images' positions overall."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    test_numbers: np.ndarray


class Answers(NamedTuple):
    """Answers of a method for the n test images, with their cost.

    Attributes
    ----------
    labels : array `[n]`
        Predicted labels.
    confidence : float array `[n]` or None
        Posterior of each prediction; None if the method has no calibrated one.
    results : sequence of RerankResult
        Results of re-ranking, one per image or none at all.
    seconds : float
        Time for all images.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    results: Sequence[RerankResult]
    seconds: float

    @property
    def evaluations(self) -> np.ndarray:
        """Evaluations of each image, int `[n]`."""
        return np.array([r.evaluations for r in self.results] or np.zeros(len(self.labels), dtype=int))

    @property
    def rows(self) -> np.ndarray:
        """Trials of each image, int `[n]`."""
        return np.array([r.rows for r in self.results] or np.zeros(len(self.labels), dtype=int))


def split_digits(seed: int, n_images: int | None = None) -> Digits:
    """Split the digits in stratified halves, to train and to test.

    Parameters
    ----------
    seed : int
        Seed of the split.
    n_images : int, optional
        Number of images to use, for a quick look. Default: all 1,797.
    """
    digits = load_digits()
    images, labels = digits.images[:n_images], digits.target[:n_images]
    train, test = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=seed, stratify=labels)
    return Digits(images[train], labels[train], images[test], labels[test], test)


def run(
    seed: int = 0,
    *,
    max_iter: int = 150,
    n_images: int | None = None,
    allocations: Mapping[str, Allocation] = ALLOCATIONS,
    progress: bool = True,
) -> Report:
    """Fit the classifier once, and compare all methods on the same test images.

    Parameters
    ----------
    seed : int
        Seed of split, training and noise.
    max_iter : int
        Most passes over the data in the denoiser's training.
    n_images : int, optional
        Number of images to use. Default: all.
    allocations : mapping from name to Allocation
        Allocations of tier 2 alone.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Report
    """
    start = perf_counter()
    data = split_digits(seed, n_images)
    # one fit for all methods, so that they differ in nothing but the allocation
    clf = HybridClassifier(max_iter=max_iter, random_state=seed, verbose=progress)
    answers: dict[str, Answers] = {}
    with progress_bar(total=len(allocations) + 4, desc="fit", unit="stage", show=progress) as bar:
        clf.fit(data.train, data.train_labels)
        fit_seconds = perf_counter() - start
        for name, ask in methods(clf, data, allocations):
            bar.update()
            bar.set_description(name)
            answers[name] = ask()
        bar.update()
    i = _watched(answers, data.test_labels)
    packages = {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
    return Report(
        seed=seed,
        n_train=len(data.train),
        n_test=len(data.test),
        fit_seconds=fit_seconds,
        seconds=perf_counter() - start,
        table=tuple(_row(name, answers, data.test_labels) for name in answers),
        reliability=tuple(filter(None, (_reliability(name, answers, data.test_labels) for name in answers))),
        race=watch(clf, data.test[i : i + 1], f"test image {data.test_numbers[i]}", data.test_labels[i].item()),
        versions={"python": platform.python_version(), "hybridclf": __version__, **packages},
    )


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json and the pictures into a folder, made if missing, and return the files' paths.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "cost-accuracy.png": plots.cost_against_accuracy(report.table, report.n_test),
        "reliability.png": plots.reliability_diagram(report.reliability),
        "race.png": plots.race(report.race),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name)
    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    return [folder / name for name in ("report.json", *figures)]


# --- the methods ------------------------------------------------------------------------------------------------------


def methods(
    clf: HybridClassifier, data: Digits, allocations: Mapping[str, Allocation]
) -> Iterator[tuple[str, Callable[[], Answers]]]:
    """Iterate over the methods: name, and function that answers for the test images."""
    yield TIER_1, lambda: _ask_proba(clf.proposer_, data)
    yield RIVAL, lambda: _ask_svc(data)
    for name, allocation in allocations.items():
        yield name, lambda allocation=allocation: _ask_tier_2(clf, data, allocation)  # type: ignore[misc]
    yield HYBRID, lambda: _ask_hybrid(clf, data)


def _ask_proba(proposer: Any, data: Digits) -> Answers:
    X = rows_of(data.test)
    posterior, seconds = _timed(lambda: proposer.predict_proba(X))
    return Answers(proposer.classes_[posterior.argmax(axis=1)], posterior.max(axis=1), (), seconds)


def _ask_svc(data: Digits) -> Answers:
    """Answer by an RBF-SVC with scikit-learn's defaults, a strong rival on small images."""
    X = rows_of(data.test)
    svc = SVC().fit(rows_of(data.train), data.train_labels)
    labels, seconds = _timed(lambda: svc.predict(X))
    return Answers(labels, None, (), seconds)


def _ask_tier_2(clf: HybridClassifier, data: Digits, allocation: Allocation) -> Answers:
    """Answer by tier 2's evidence alone, over all classes: a diffusion classifier on the hybrid's weights."""
    candidates = [clf.classes_.tolist()] * len(data.test)
    # an unfitted fusion: no prior, so evidence alone decides
    reranker = clf.reranker(allocation, Fusion())
    results, seconds = _timed(lambda: reranker.rerank(data.test, candidates, progress=clf.verbose))
    return Answers(np.array([r.ranking[0] for r in results]), None, results, seconds)


def _ask_hybrid(clf: HybridClassifier, data: Digits) -> Answers:
    (posterior, results), seconds = _timed(lambda: clf.decide(data.test))
    labels = clf.classes_[posterior.argmax(axis=1)]
    return Answers(labels, posterior.max(axis=1), results, seconds)


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    """Call a function until `MIN_SECONDS` are over; return its value and the mean seconds per call."""
    start, calls, elapsed = perf_counter(), 0, 0.0
    while elapsed < MIN_SECONDS:
        value = function()
        calls, elapsed = calls + 1, perf_counter() - start
    return value, elapsed / calls


# --- the report -------------------------------------------------------------------------------------------------------


def _row(name: str, answers: Mapping[str, Answers], y: np.ndarray) -> Row:
    mine, hybrid = answers[name], answers[HYBRID]
    right = mine.labels == y
    reliability = _reliability(name, answers, y)
    return Row(
        method=name,
        accuracy=metrics.accuracy(right),
        hybrid_gain=metrics.accuracy_difference(hybrid.labels == y, right),
        calibration_error=None if reliability is None else reliability.calibration_error,
        evaluations=float(mine.evaluations.mean()),
        rows=float(mine.rows.mean()),
        images_per_second=len(y) / mine.seconds,
        no_evaluation=float((mine.evaluations == 0).mean()),
    )


def _reliability(name: str, answers: Mapping[str, Answers], y: np.ndarray) -> Reliability | None:
    """Measure the calibration of a method; None if it has no calibrated probabilities."""
    labels, confidence = answers[name].labels, answers[name].confidence
    if confidence is None:
        return None
    error = metrics.expected_calibration_error(confidence, labels == y)
    n_bins = max(min(len(y) // PER_BIN, MAX_BINS), 1)
    return Reliability(name, error, metrics.equal_count_bins(confidence, labels == y, n_bins))


def _watched(answers: Mapping[str, Answers], y: np.ndarray) -> int:
    """The test image of the longest race that was settled, if possible where tier 1 is wrong and the hybrid right."""
    hybrid = answers[HYBRID]
    saved = (answers[TIER_1].labels != y) & (hybrid.labels == y)
    settled = np.array([r.stopped_by == "confident" and r.evaluations > 0 for r in hybrid.results])
    return int(np.lexsort((hybrid.evaluations, settled, saved))[-1])
