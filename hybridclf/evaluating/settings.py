"""The settings of both tiers together, chosen on the images that are for calibration and on no others."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..denoising.weighting import resolve_weighting
from ..estimator import HybridClassifier
from ..fitting.calibration import COMPARED_IN, ENOUGH, Calibration, calibrate, fit_calibration
from ..proposer import is_trained
from ..reranking.allocation import Race
from ..reranking.trials import INFORMATIVE_TRIALS
from ..utils.progress import progress_bar
from .methods import Answers, Method, calibrated, hybrid_of, replay
from .recording import Recording
from .scores import losses

__all__ = ["Settings", "recommend"]

CANDIDATES, CONFIDENCES, TRIALS = (2, 3, 5, 10, 20), (0.9, 0.95, 0.99, 0.999), (1, 2, 4, 8, 16, 32)
"""What is tried."""

KEPT = 0.9
"""Share of the best settings' gain in log loss that cheaper ones have to keep."""

DEARER = 1.5
"""Times the cost of the settings chosen up to which a classifier is left as it is."""

PRIOR_ALONE = Race(confidence=1e-6, max_trials=1)
"""Stops before the first trial: tier 1, at the fitted temperature."""

HYBRID = "hybrid, calibrated here"

OWN = "hybrid, as it is"


@dataclass(frozen=True)
class Settings:
    """What is recommended.

    Attributes
    ----------
    top_k, confidence, max_trials, objective
        Candidates that tier 1 hands over, posterior at which the leader wins, trials at most, and error; None where the
        classifier is best left as it is and has none.
    own : bool
        Whether the classifier is best left as it is.
    pays : bool
        Whether re-ranking pays on the images for calibration.
    line : str
        Python that makes it so.
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
    """Settings that are tried: log losses `[n]` of the images for calibration, and their mean cost."""

    race: Race | None  # None: the classifier's own
    top_k: int | None
    objective: str
    losses: np.ndarray
    cost: float


def recommend(
    clf: HybridClassifier, calibration: Recording, seed: int, progress: bool = False
) -> tuple[Settings, list[Method]]:
    """Choose settings by replaying them on images that their fusion was not fitted on.

    The cheapest settings are chosen that keep nine tenths of what the best ones' log loss gains over tier 1's, at its
    fitted temperature. The objective is chosen first, by the default `Race`: the classifier's own unless another one is
    better by that measure. A classifier that is calibrated already is left as it is unless its log loss is higher by a
    standard error, or its cost by half.

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
    calibration = calibration.first(INFORMATIVE_TRIALS)
    own = hybrid_of(clf, calibration.n_trials, OWN)
    folds = _folds(len(calibration), seed)
    default = Race(max_trials=min(Race().max_trials, calibration.n_trials))
    n_candidates = calibration.candidates.shape[1]
    objectives = [clf.objective, *(name for name in calibration.errors if name != clf.objective)]
    named = progress_bar(objectives, desc="choose settings", unit="objective", leave=None, show=progress)
    fitted = {name: _fit(clf, calibration, folds, default, name) for name in named}
    first = [_tried(clf, calibration, folds, fitted[name], default, n_candidates, name) for name in objectives]
    prior = _tried(clf, calibration, folds, fitted[clf.objective], PRIOR_ALONE, n_candidates, clf.objective)
    objective = _good(first, prior)[0].objective
    grid = list(_grid(n_candidates, calibration.n_trials))
    options = [
        _tried(clf, calibration, folds, fitted[objective], race, top_k, objective)
        for race, top_k in progress_bar(grid, desc="choose settings", unit="setting", leave=None, show=progress)
    ]
    chosen = min(_good(options, prior), key=lambda option: option.cost)
    if clf.fusion_.calibrated:
        as_it_is = _option(None, clf.top_k, clf.objective, replay(own, calibration), calibration)
        chosen = as_it_is if _suffices(as_it_is, chosen) else chosen
    race, top_k = chosen.race or default, chosen.top_k or n_candidates
    learned = calibrate(
        calibration.for_fitting(objective), clf.classes_, race, top_k, resolve_weighting(clf.weighting), seed
    )
    pays = clf.fusion_.pays if chosen.race is None else learned.worth is not None and learned.worth.pays
    method = calibrated(HYBRID, learned, race, top_k, objective, clf.weighting)
    return _settings(clf, chosen, own, pays), [own, method]


def _grid(n_candidates: int, n_trials: int) -> Iterator[tuple[Race, int]]:
    for top_k in sorted({min(k, n_candidates) for k in CANDIDATES}):
        for max_trials in sorted({min(n, n_trials) for n in TRIALS}):
            for confidence in CONFIDENCES:
                yield Race(confidence, max_trials), top_k


def _folds(n: int, seed: int) -> np.ndarray:
    """The fold of each image `[n]`: few images are cut into more parts, as in `calibrate`."""
    return np.random.default_rng(seed).permutation(n) % min(COMPARED_IN[n > ENOUGH], n)


def _fit(
    clf: HybridClassifier, calibration: Recording, folds: np.ndarray, race: Race, objective: str
) -> list[Calibration]:
    """For each fold, what the images of the others teach."""
    weighting = resolve_weighting(clf.weighting)
    others = (calibration.select(folds != f).for_fitting(objective) for f in range(folds.max() + 1))
    return [fit_calibration(recording, race, None, weighting) for recording in others]


def _tried(
    clf: HybridClassifier,
    calibration: Recording,
    folds: np.ndarray,
    fitted: list[Calibration],
    race: Race,
    top_k: int,
    objective: str,
) -> _Option:
    """Settings replayed on each fold, with the fusion that was fitted on the others."""
    answers = []
    for f, fit in enumerate(fitted):
        method = calibrated("", fit, race, top_k, objective, clf.weighting)
        answers.append(replay(method, calibration.select(folds == f)))
    order = np.argsort(np.argsort(folds, kind="stable"))  # from fold after fold back to where each image was
    joined = Answers(
        np.concatenate([a.posterior for a in answers])[order],
        np.concatenate([a.evaluations for a in answers])[order],
        np.concatenate([a.rows for a in answers])[order],
        [""] * len(folds),
    )
    return _option(race, top_k, objective, joined, calibration)


def _option(race: Race | None, top_k: int | None, objective: str, answers: Answers, calibration: Recording) -> _Option:
    cost = answers.rows if calibration.cost_unit == "row" else answers.evaluations
    return _Option(race, top_k, objective, losses(answers, calibration.y), float(cost.mean()))


def _good(options: list[_Option], prior: _Option) -> list[_Option]:
    """Those that keep `KEPT` of what the best one's log loss gains over the prior's; the best if it gains nothing."""
    losses = [float(option.losses.mean()) for option in options]
    gain = float(prior.losses.mean()) - min(losses)
    limit = min(losses) + max((1 - KEPT) * gain, 0)
    return [option for option, loss in zip(options, losses, strict=True) if loss <= limit]


def _suffices(own: _Option, chosen: _Option) -> bool:
    """Whether settings that are there already are as good as the ones chosen, and not much dearer."""
    excess = own.losses - chosen.losses
    error = float(excess.std() / np.sqrt(len(excess)))
    return float(excess.mean()) <= error and own.cost <= DEARER * chosen.cost


def _settings(clf: HybridClassifier, chosen: _Option, own: Method, pays: bool) -> Settings:
    race = own.allocation if chosen.race is None else chosen.race
    assert race is not None  # re-ranking has an allocation
    confidence = getattr(race, "confidence", None)
    line = _line(clf, chosen) if pays or chosen.race is not None else "clf"
    return Settings(chosen.top_k, confidence, race.max_trials, chosen.objective, chosen.race is None, pays, line)


def _line(clf: HybridClassifier, chosen: _Option) -> str:
    """Python that gives a classifier the settings; X and y are images for calibration."""
    if chosen.race is None:
        return "clf  # as it is"
    race = f"Race(confidence={chosen.race.confidence:g}, max_trials={chosen.race.max_trials})"
    if chosen.objective == clf.objective:
        return f"clf.set_params(top_k={chosen.top_k}, allocation={race}).calibrate(X, y)"
    tier_1 = "clf.proposer_" if is_trained(clf.proposer_) else "FrozenEstimator(clf.proposer_)"
    return (
        f"HybridClassifier({tier_1}, clf.denoiser_, top_k={chosen.top_k}, allocation={race}, "
        f"objective={chosen.objective!r}).fit(X, y)"
    )
