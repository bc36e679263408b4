"""The methods that are compared, each as what decides its answers; replayed from a recording, or run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from ..data.arrays import Items
from ..denoising.weighting import Weighting, resolve_weighting, uniform_weights
from ..estimator import HybridClassifier
from ..fitting.calibration import Calibration, fit_calibration
from ..fitting.drift import Drift, looks_of
from ..fitting.recording import RECORDED_CLASSES
from ..proposer import aligned_log_proba, shortlist
from ..reranker import Reranker
from ..reranking.allocation import PRESETS, Allocation, FixedTrials, PairedTTest, Staged
from ..reranking.batches import Capacity, ReplayEvaluator
from ..reranking.evidence import TIER_1_ANSWERS, RerankResult
from ..reranking.fusion import Fusion
from ..reranking.loop import Loop
from ..reranking.tasks import Task, uniform_prior
from ..reranking.trials import INFORMATIVE_TRIALS, InformativeOrder, TrialPlan, even_order, nearest_trials
from ..reranking.window import Window
from .recording import Recording

__all__ = ["TIER_1", "Answers", "Method", "calibrated", "hybrid_of", "published", "replay", "run", "staged_preset"]

TIER_1 = "tier 1"

BATCH = Capacity(512, 2**14)
"""Rows and evaluations that are replayed at a time."""

UNFITTED = Fusion()

_PRESET_CLASSES = {"cifar10": 10, "pets": 37, "food101": 101, "imagenet": 1000}
"""Classes of data sets whose stages differ in Table 6 of arXiv 2303.16203."""


@dataclass(frozen=True)
class Method:
    """All that decides a method's answers, beside what both tiers say.

    Attributes
    ----------
    name : str
        What tables call it.
    allocation : Allocation or None
        Which candidates get the next trial, and when to stop; None: tier 1 answers.
    fusion : Fusion
        What makes a posterior.
    top_k : int or None
        Candidates; None: as many as the prior leaves open.
    blind : bool
        Whether tier 1's probabilities are left out: all candidates begin alike.
    objective : str
        Error between noise and predicted noise.
    weighting : Weighting
        Timestep weights of it.
    order : InformativeOrder or None
        Fitted order of the trials; None: the even one.
    unusual_alone : bool
        Whether tier 2 is asked about unusual images alone.
    drift : Drift or None
        What flattens tier 1's prior for unusual images, and tells them.
    """

    name: str
    allocation: Allocation | None = None
    fusion: Fusion = UNFITTED
    top_k: int | None = None
    blind: bool = False
    objective: str = "l2"
    weighting: Weighting = uniform_weights
    order: InformativeOrder | None = None
    unusual_alone: bool = False
    drift: Drift | None = None

    def trials(self, t: np.ndarray) -> np.ndarray:
        """Positions, among recorded trials at times t `[T]`, of those that the method uses, in its order.

        A fitted order chooses from `INFORMATIVE_TRIALS` of them, as it does in `Reranker`. Without one they are those
        that are nearest to the trials of the allocation's own plan.
        """
        if self.order is None or self.allocation is None or not self.allocation.fitted_order:
            return nearest_trials(len(t) if self.allocation is None else self.allocation.max_trials, t)
        return np.argsort(-self.order.at(t[:INFORMATIVE_TRIALS]), kind="stable")

    def prior(self, log_proba: np.ndarray, looks: np.ndarray | None) -> np.ndarray:
        """Log prior `[n, C]` that both tiers start from, of tier 1's log-probabilities and of looks `[n, 5]`."""
        return log_proba if self.drift is None or looks is None else self.drift.flattened(log_proba, looks)

    def aside(self, novel: np.ndarray, looks: np.ndarray | None) -> list[str]:
        """Reasons why tier 1 answers, "" for images to ask tier 2 about, of novel vectors, bool `[n]`, and looks."""
        asked = np.ones(len(novel), dtype=bool)
        if self.unusual_alone and self.drift is not None and looks is not None:
            asked = self.drift.unusual(looks)
        return np.where(novel, "novel", np.where(asked, "", "off")).tolist()


@dataclass(frozen=True)
class Answers:
    """Answers of a method to n images.

    Attributes
    ----------
    posterior : float array `[n, C]`
        Rows sum to one.
    evaluations, rows : int array `[n]`
        What each image cost.
    stopped_by : list of n str
        Why; "" for tier 1 alone.
    """

    posterior: np.ndarray
    evaluations: np.ndarray
    rows: np.ndarray
    stopped_by: list[str]

    def __len__(self) -> int:
        return len(self.posterior)

    @property
    def label(self) -> np.ndarray:
        """Positions of the classes that are answered, int `[n]`."""
        return self.posterior.argmax(axis=1)

    @classmethod
    def join(cls, parts: Sequence["Answers"]) -> "Answers":
        """The answers to some images, and then to others."""
        posterior, evaluations, rows = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("posterior", "evaluations", "rows")
        )
        return cls(posterior, evaluations, rows, [why for part in parts for why in part.stopped_by])

    def select(self, images: np.ndarray) -> "Answers":
        """The answers to the images at some positions `[m]`."""
        why = [self.stopped_by[i] for i in images.tolist()]
        return Answers(self.posterior[images], self.evaluations[images], self.rows[images], why)


# --- answering --------------------------------------------------------------------------------------------------------


def replay(method: Method, recording: Recording) -> Answers:
    """A method's answers from recorded errors, by the loop that asks a denoiser: the same as `run` gives.

    Parameters
    ----------
    method : Method
        Its allocation asks for no more trials than were recorded.
    recording : Recording
        n images. Candidates that were not recorded are left out.
    """
    if method.allocation is None:
        return _tier_1(recording.log_proba)
    trials = method.trials(recording.t)[: method.allocation.max_trials]
    n_candidates = recording.candidates.shape[1]
    weight = method.weighting(recording.t, recording.alpha, recording.sigma)[trials]
    # Column of each class among an image's candidates; -1: not recorded. Candidates (2, 0) of three: (1, -1, 0).
    column = np.full(recording.log_proba.shape, -1)
    np.put_along_axis(column, recording.candidates, np.arange(n_candidates)[None], axis=1)
    log_prior = method.prior(recording.log_proba, recording.looks)
    chosen = [c[column[i, c] >= 0] for i, c in enumerate(_candidates(method, log_prior))]
    tasks = list(_tasks(method, recording, log_prior, chosen))
    index = np.zeros(recording.candidates.shape, dtype=int)  # what pads is never asked for
    for i, c in enumerate(chosen):
        index[i, : len(c)] = column[i, c]
    table = np.take_along_axis(recording.errors[method.objective][:, trials], index[:, None], axis=2)
    evaluator = ReplayEvaluator(table * weight[:, None])
    evaluator.n_prompts = recording.n_prompts
    ceilings = None if method.fusion.usual is None else method.fusion.usual.ceilings(recording.t[trials], weight)
    window = Window.for_batches(BATCH, method.allocation.max_trials, n_candidates)
    loop = Loop(method.allocation, method.fusion, evaluator, BATCH, window, ceilings=ceilings)
    results: list[Any] = [None] * len(recording)
    for step in loop.run(tasks):
        for image, result in step.finished:
            results[image] = result
    return _answers(method, recording.classes, log_prior, results)


def run(method: Method, clf: HybridClassifier, items: Items, n_trials: int) -> Answers:
    """A method's answers by asking both tiers of a classifier now, in the trials that a recording of T has.

    Parameters
    ----------
    method : Method
        What decides.
    clf : HybridClassifier
        Both tiers.
    items : Items
        n images as the classifier reads them.
    n_trials : int
        T.
    """
    log_proba = aligned_log_proba(clf.proposer_, items, clf.classes_)
    if method.allocation is None:
        return _tier_1(log_proba)
    looks = None if method.drift is None else looks_of(items.images, *method.drift.pixel_range)
    log_prior = method.prior(log_proba, looks)
    stage = clf.reranker(method.allocation, method.fusion)
    if method.objective != clf._objective:
        stage = Reranker(
            clf.denoiser_,
            allocation=method.allocation,
            fusion=method.fusion,
            objective=method.objective,
            batch_size=clf.batch_size,
            random_state=clf._seed,
        )
    stage.weighting, stage.check_prior = method.weighting, False
    stage.plan = TrialPlan(n_trials, clf.denoiser_.shape, stage.plan.seed)  # to know the times
    trials = method.trials(stage.levels()[0])
    even = even_order(n_trials)
    stage.plan = TrialPlan(n_trials, clf.denoiser_.shape, stage.plan.seed, [*even[trials], *np.delete(even, trials)])
    chosen = _candidates(method, log_prior)
    labels = [clf.classes_[c].tolist() for c in chosen]
    priors = None if method.blind else [p[c] for p, c in zip(log_prior, chosen, strict=True)]
    results = stage.rerank(items.images, labels, priors, aside=method.aside(clf._novel(items), looks))
    return _answers(method, clf.classes_, log_prior, results)


def _tier_1(log_proba: np.ndarray) -> Answers:
    nothing = np.zeros(len(log_proba), dtype=int)
    return Answers(softmax(log_proba, axis=1), nothing, nothing, [""] * len(log_proba))


def _candidates(method: Method, log_prior: np.ndarray) -> list[np.ndarray]:
    """Positions of each image's candidates, best first."""
    return shortlist(method.fusion.prior(log_prior), method.top_k, RECORDED_CLASSES)


def _tasks(method: Method, recording: Recording, log_prior: np.ndarray, chosen: list[np.ndarray]) -> Iterator[Task]:
    aside = method.aside(recording.novel, recording.looks)
    for i, c in enumerate(chosen):
        prior = uniform_prior(c.tolist()) if method.blind else log_prior[i, c]
        yield Task(i, tuple(recording.classes[c].tolist()), prior, aside=aside[i])


def _answers(method: Method, classes: np.ndarray, log_prior: np.ndarray, results: list[RerankResult]) -> Answers:
    """Posteriors of all classes: those that were no candidates keep tier 1's share, or none where it is left out."""
    number = {label: i for i, label in enumerate(classes.tolist())}
    columns = [[number[label] for label in result.candidates] for result in results]
    posterior = method.fusion.over_all_classes(log_prior, columns, results)
    if method.blind:
        for row, chosen, result in zip(posterior, columns, results, strict=True):
            if result.stopped_by not in TIER_1_ANSWERS:
                row[:] = 0.0
                row[chosen] = result.posterior
    return Answers(
        posterior,
        np.array([result.evaluations for result in results]),
        np.array([result.rows for result in results]),
        [result.stopped_by for result in results],
    )


# --- the methods ------------------------------------------------------------------------------------------------------


def published(calibration: Recording, weighting: Weighting, objective: str) -> list[Method]:
    """Tier 2 alone as the papers have it: all trials, stages, and the paired t-test.

    None of them knows tier 1's probabilities. Their posteriors have a temperature that is fitted on labelled images;
    the answers do not depend on it.

    Parameters
    ----------
    calibration : Recording
        Images to fit the temperature on.
    weighting : Weighting
        Timestep weights.
    objective : str
        Error between noise and predicted noise.
    """
    n, k = calibration.n_trials, calibration.candidates.shape[1]
    among = "" if k == len(calibration.classes) else f", tier 1's {k} classes"
    fusion = _blind_fusion(calibration, weighting, objective)
    staged = staged_preset(len(calibration.classes), k, n)
    test = PairedTTest(min_trials=min(PairedTTest().min_trials, max(2, n // 2)), max_trials=max(2, n))
    allocations: dict[str, Allocation] = {
        f"tier 2: {n} trials{among}": FixedTrials(n),
        f"tier 2: Staged {staged.keep}, {staged.trials}{among}": staged,
        f"tier 2: PairedTTest {test.p:g}, {test.min_trials} to {n} trials{among}": test,
    }
    shared: dict[str, Any] = {"fusion": fusion, "top_k": k, "blind": True, "objective": objective}
    return [Method(name, a, weighting=weighting, **shared) for name, a in allocations.items()]


def _blind_fusion(calibration: Recording, weighting: Weighting, objective: str) -> Fusion:
    """A fusion of errors alone, fitted to all trials."""
    made = calibration.for_fitting(objective)
    none = {name: np.zeros_like(getattr(made, name)) for name in ("log_prior", "all_log_prior")}
    fitted = fit_calibration(replace(made, **none), FixedTrials(calibration.n_trials), None, weighting)
    return replace(fitted.fusion, usual=None, prior_alone=1.0)


def staged_preset(n_classes: int, n_candidates: int, n_trials: int) -> Staged:
    """The published stages for about as many classes, scaled to the candidates and trials that there are."""
    name = min(_PRESET_CLASSES, key=lambda name: abs(np.log(_PRESET_CLASSES[name] / n_classes)))
    keep, trials = PRESETS[name]
    stages: dict[int, int] = {}  # trials by the end of a stage: classes that it keeps
    for kept, count in zip(keep, trials, strict=True):
        if kept < n_candidates:
            stages[max(1, round(count * min(1.0, n_trials / trials[-1])))] = kept
    return Staged(tuple(stages.values()), tuple(stages))


def hybrid_of(clf: HybridClassifier, n_trials: int, name: str = "hybrid, as it is") -> Method:
    """Both tiers as the classifier has them; an allocation that asks for more trials than T is cut down to them."""
    stage, learned = clf.reranker(), clf.calibration_
    return Method(
        name,
        stage.allocation.limited_to(n_trials),
        stage.fusion,
        clf.top_k,
        objective=clf._objective,
        weighting=stage.weighting,
        order=learned.order if learned else None,
        unusual_alone=learned is not None and learned.unusual_alone,
        drift=learned.drift if learned else None,
    )


def calibrated(
    name: str, fitted: Calibration, allocation: Allocation, top_k: int | None, objective: str, weighting: str
) -> Method:
    """Both tiers with what a calibration found; tier 2 is on, whether it pays or not."""
    weights = resolve_weighting(weighting) or fitted.weighting
    assert weights is not None  # given or learned
    fusion = replace(fitted.fusion, pays=True)
    learned: dict[str, Any] = {"weighting": weights, "order": fitted.order, "drift": fitted.drift}
    return Method(name, allocation, fusion, top_k, objective=objective, **learned)
