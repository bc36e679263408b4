"""The settings of both tiers together, chosen on the images that are for calibration and on no others."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ..denoising.weighting import Weighting, resolve_weighting
from ..estimator import HybridClassifier
from ..fitting import recording as labelled
from ..fitting.calibration import Calibration, fit_calibration
from ..fitting.drift import Drift
from ..fitting.splitting import cross_fit_parts
from ..fitting.worth import Answers as WorthAnswers
from ..fitting.worth import Worth, harmed_classes
from ..proposer import is_trained
from ..reranking.allocation import Allocation, FixedTrials, Race
from ..reranking.trials import INFORMATIVE_TRIALS
from ..utils.progress import progress_bar
from .methods import Answers, Method, calibrated, hybrid_of, replay
from .recording import Recording
from .scores import losses

__all__ = ["Settings", "recommend"]

CANDIDATES, TRIALS, CONFIDENCES = (2, 5, 10, 20), (1, 2, 4, 8, 16), (0.9, 0.95, 0.99, 0.999)
"""Values that are tried."""

COMPARED_TRIALS = 16
"""Trials by which objectives are compared."""

KEPT = 0.9
"""Share of the best settings' gain in log loss that cheaper ones have to keep."""

DEARER = 1.5
"""Times the cost of the settings chosen up to which a classifier is left as it is."""

PRIOR_ALONE = Race(confidence=1e-6, max_trials=1)
"""Stops before the first trial: tier 1, at the fitted temperature."""

HYBRID = "hybrid, calibrated here"

OWN, UNCALIBRATED = "hybrid, as it is", "hybrid, not calibrated"
"""The classifier as it is; without a fitted fusion evidence alone decides."""


@dataclass(frozen=True)
class Settings:
    """Recommended settings.

    Attributes
    ----------
    top_k, confidence, max_trials, objective
        Candidates that tier 1 hands over, posterior at which the leader wins, trials at most, and error; None where the
        classifier is best left as it is and has none.
    own : bool
        Whether the classifier is best left as it is.
    pays : bool
        Whether re-ranking pays on the images for calibration; the report's verdict is of the test images.
    line : str
        Python that makes it so; X and y are images with their labels that neither tier was trained on.
    """

    top_k: int | None
    confidence: float | None
    max_trials: int
    objective: str
    own: bool
    pays: bool
    line: str


@dataclass(frozen=True)
class _Option:
    """Settings that are tried, and what they make of the images for calibration."""

    allocation: Allocation
    top_k: int | None
    objective: str
    answers: Answers
    losses: np.ndarray
    cost: float
    own: bool = False


def recommend(
    clf: HybridClassifier, calibration: Recording, seed: int, progress: bool = False
) -> tuple[Settings, list[Method]]:
    """Choose settings by replaying them on images that their fusion was not fitted on.

    The cheapest settings are chosen that keep nine tenths of what the best ones' log loss gains over tier 1's, at its
    fitted temperature. The objective is chosen first, by trials of all candidates: the classifier's own unless another
    one is better by that measure. A classifier that is calibrated already is left as it is unless its log loss is
    higher by a standard error, or its cost by half.

    Parameters
    ----------
    clf : HybridClassifier
        Both tiers, as they are.
    calibration : Recording
        Labelled images that neither tier was trained on.
    seed : int
        Decides which of them a fusion is fitted on at a time.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Settings
        What is recommended.
    list of Method
        The classifier as it is, and as it is with what was fitted here.

    Raises
    ------
    InvalidInputError
        If no image has its right class among the candidates.
    """
    search = _Search(clf, calibration.first(INFORMATIVE_TRIALS), seed, progress)
    prior, objective = search.objective()
    options = search.races(objective)
    chosen = min(_good(options, prior), key=lambda option: option.cost)
    method = search.fitted(chosen, prior)
    own = hybrid_of(clf, search.calibration.n_trials, OWN if clf.fusion_.calibrated else UNCALIBRATED)
    if clf.fusion_.calibrated:
        as_it_is = search.option(own.allocation, clf.top_k, clf._objective, replay(own, search.calibration))
        chosen = replace(as_it_is, own=True) if _suffices(as_it_is, chosen) else chosen
    worth = Worth.of(_worth_answers(chosen, prior, search.calibration))
    pays = worth.pays and worth.log_loss_gain.low > 0  # the best of many looks better than it is
    return _settings(clf, chosen, pays), [own, method]


class _Search:
    """Tries settings on images for calibration, each group of images with a fusion that was fitted on others."""

    def __init__(self, clf: HybridClassifier, calibration: Recording, seed: int, progress: bool) -> None:
        self.clf, self.calibration, self.progress = clf, calibration, progress
        self.n_candidates = calibration.candidates.shape[1]
        self.folds = cross_fit_parts(calibration.units, seed)

    def objective(self) -> tuple[_Option, str]:
        """Tier 1 at its fitted temperature, and the objective by which a few trials tell classes apart best."""
        trials = FixedTrials(min(COMPARED_TRIALS, self.calibration.n_trials))
        names = [self.clf._objective, *(name for name in self.calibration.errors if name != self.clf._objective)]
        bar = progress_bar(names, desc="choose an objective", unit="objective", leave=None, show=self.progress)
        fitted = {name: self._fit(trials, name) for name in bar}
        options = [self._tried(fitted[name], trials, self.n_candidates, name) for name in names]
        prior = self._tried(fitted[names[0]], PRIOR_ALONE, self.n_candidates, names[0])
        return prior, _good(options, prior)[0].objective

    def races(self, objective: str) -> list[_Option]:
        """All races that are tried."""
        top_ks = sorted({min(k, self.n_candidates) for k in CANDIDATES})
        trials = sorted({min(n, self.calibration.n_trials) for n in TRIALS})
        grid = list(product(top_ks, trials, CONFIDENCES))
        fitted = self._fit(Race(max_trials=min(Race().max_trials, trials[-1])), objective)
        bar = progress_bar(grid, desc="choose settings", unit="setting", leave=None, show=self.progress)
        return [self._tried(fitted, Race(confidence, n), k, objective) for k, n, confidence in bar]

    def fitted(self, option: _Option, prior: _Option) -> Method:
        """The method that has these settings, and what all images for calibration teach."""
        weighting = resolve_weighting(self.clf._weighting)
        recording = self.calibration.for_fitting(option.objective)
        learned = _learned(recording, option.allocation, option.top_k, weighting)
        harmed = self.clf.classes_[harmed_classes(_worth_answers(option, prior, self.calibration))].tolist()
        learned = replace(learned, fusion=replace(learned.fusion, harmed=tuple(harmed)))
        return self._method(learned, option.allocation, option.top_k, option.objective, HYBRID)

    def option(self, allocation: Any, top_k: int | None, objective: str, answers: Answers) -> _Option:
        """Settings, with what they cost and how likely the right classes are by their answers."""
        cost = answers.rows if self.calibration.cost_unit == "row" else answers.evaluations
        return _Option(allocation, top_k, objective, answers, losses(answers, self.calibration.y), float(cost.mean()))

    def _fit(self, allocation: Allocation, objective: str) -> list[Calibration]:
        """Fit a calibration for each fold to the images of the others."""
        weighting = resolve_weighting(self.clf._weighting)
        n_folds = int(self.folds.max()) + 1
        others = (self.calibration.select(self.folds != f).for_fitting(objective) for f in range(n_folds))
        return [_learned(recording, allocation, None, weighting) for recording in others]

    def _tried(self, fitted: list[Calibration], allocation: Allocation, top_k: int, objective: str) -> _Option:
        """Settings replayed on each fold, with what was fitted on the others."""
        folds = range(len(fitted))
        parts = [
            replay(self._method(fitted[f], allocation, top_k, objective), self.calibration.select(self.folds == f))
            for f in folds
        ]
        places = np.concatenate([np.flatnonzero(self.folds == f) for f in folds])
        return self.option(allocation, top_k, objective, Answers.join(parts).select(np.argsort(places)))

    def _method(
        self, learned: Calibration, allocation: Allocation, top_k: int | None, objective: str, name: str = ""
    ) -> Method:
        method = calibrated(name, learned, allocation, top_k, objective, self.clf._weighting)
        # tier 1 alone is not flattened: where tier 2 is off there is no drift
        return replace(method, drift=None) if allocation == PRIOR_ALONE else method


def _learned(
    recording: labelled.Recording, allocation: Allocation, top_k: int | None, weighting: Weighting | None
) -> Calibration:
    """A calibration and the drift that goes with it, as `calibrate` fits them where tier 2 pays."""
    fitted = fit_calibration(recording, allocation, top_k, weighting)
    drift = None if recording.drift is None else Drift.fit(recording.drift, fitted.fusion.prior_alone)
    return replace(fitted, drift=drift)


def _worth_answers(option: _Option, prior: _Option, calibration: Recording) -> WorthAnswers:
    """Answers of tier 1 at its fitted temperature, and of settings, to the images for calibration."""
    return WorthAnswers(
        leader=calibration.log_proba.argmax(axis=1),
        right=np.stack([prior.answers.label, option.answers.label]) == calibration.y,
        loss=np.stack([prior.losses, option.losses]),
        evaluations=option.answers.evaluations,
        weight=np.ones(len(calibration)),
        unit=calibration.units,
    )


def _good(options: list[_Option], prior: _Option) -> list[_Option]:
    """Options that keep `KEPT` of the best option's gain in log loss over the prior; the best if it gains nothing."""
    losses = [float(option.losses.mean()) for option in options]
    gain = float(prior.losses.mean()) - min(losses)
    limit = min(losses) + max((1 - KEPT) * gain, 0)
    return [option for option, loss in zip(options, losses, strict=True) if loss <= limit]


def _suffices(own: _Option, chosen: _Option) -> bool:
    """Tell if the classifier's own settings are as good as the chosen ones, and not much dearer."""
    excess = own.losses - chosen.losses
    error = float(excess.std() / np.sqrt(len(excess)))
    return float(excess.mean()) <= error and own.cost <= DEARER * chosen.cost


def _settings(clf: HybridClassifier, chosen: _Option, pays: bool) -> Settings:
    confidence, max_trials = getattr(chosen.allocation, "confidence", None), chosen.allocation.max_trials
    line = "clf  # as it is" if chosen.own else _line(clf, chosen, f"Race({confidence:g}, {max_trials})")
    return Settings(chosen.top_k, confidence, max_trials, chosen.objective, chosen.own, pays, line)


def _line(clf: HybridClassifier, chosen: _Option, race: str) -> str:
    """Python that gives a classifier the settings; X and y are images for calibration."""
    if chosen.objective == clf._objective:
        return f"clf.set_params(top_k={chosen.top_k}, allocation={race}).calibrate(X, y)"
    tier_1 = "clf.proposer_" if is_trained(clf.proposer_) else "FrozenEstimator(clf.proposer_)"
    return (
        f"HybridClassifier({tier_1}, clf.denoiser_, top_k={chosen.top_k}, allocation={race}, "
        f"objective={chosen.objective!r}).fit(X, y)"
    )
