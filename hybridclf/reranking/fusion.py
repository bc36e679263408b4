"""Prior and evidence become one posterior."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from ..ports import Label
from ..utils.bounds import check_number
from .evidence import TIER_1_ANSWERS, RerankResult
from .novelty import UsualErrors

__all__ = ["Fusion"]

_TRIAL_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Fusion:
    """Posterior of the candidates from tier 1's log prior and tier 2's errors.

    After n trials the log-score of class c is `prior_weight`·log prior_c - β_n·(sum of its n errors) with
    β_n = `error_weight` / (1 + `correlation`·(n - 1)): trials on one image are correlated, and n of them count for
    less than n independent ones. Before the first trial it is `prior_alone`·log prior_c. Dropped classes keep the
    posterior they had when they were dropped, at most that of the last class that stayed.

    Unfitted, evidence alone decides among the candidates, and the posterior is no calibrated probability: the scores
    are minus half the mean error, the log-density of unit Gaussian noise.

    Parameters
    ----------
    prior_alone : float
        Inverse temperature of the prior where there is no evidence, > 0.
    prior_weight : float
        Weight of the log prior beside evidence, ≥ 0.
    error_weight : float
        Weight of the error of a first trial, > 0.
    correlation : float
        0 for independent trials (errors add up), 1 for a mean over trials, more where further trials repeat the
        first; ≥ 0.
    calibrated : bool
        Whether the parameters were fitted on labelled images.
    usual : UsualErrors or None
        Errors beyond which an image is novel, and the answer tier 1's; None to take any errors as evidence.
    top_log_prior : float or None
        Mean log-probability of tier 1's first class on the calibration images; tells another tier 1 from the one that
        the fusion was fitted for.
    pays : bool
        Whether tier 2 is asked at all.
    harmed : tuple of labels
        Classes that tier 2 is not asked about where tier 1 ranks them first: held-out images of them are better off so.
    """

    prior_alone: float = 1.0
    prior_weight: float = 0.0
    error_weight: float = 0.5
    correlation: float = 1.0
    calibrated: bool = False
    usual: UsualErrors | None = None
    top_log_prior: float | None = None
    pays: bool = True
    harmed: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        check_number("prior_alone", self.prior_alone, above=0)
        check_number("prior_weight", self.prior_weight, at_least=0)
        check_number("error_weight", self.error_weight, above=0)
        check_number("correlation", self.correlation, at_least=0)
        if isinstance(self.usual, Mapping):  # from JSON
            object.__setattr__(self, "usual", UsualErrors(**self.usual))
        object.__setattr__(self, "harmed", tuple(self.harmed))

    def scores(self, log_prior: np.ndarray, sums: np.ndarray, n_trials: np.ndarray) -> np.ndarray:
        """Log-scores `[m, K]` from log prior `[m, K]`, summed errors `[m, K]` and trials `[m]`; -inf stays -inf."""
        n = n_trials[:, None]
        beta = self.error_weight / (1 + self.correlation * np.maximum(n - 1, 0))
        alpha = np.where(n > 0, self.prior_weight, self.prior_alone)
        listed = np.isfinite(log_prior)
        return np.where(listed, alpha * np.where(listed, log_prior, 0.0) - beta * sums, -np.inf)

    def posterior(
        self,
        log_prior: np.ndarray,
        sums: np.ndarray,
        n_trials: np.ndarray,
        alive: np.ndarray | None = None,
        frozen: np.ndarray | None = None,
    ) -> np.ndarray:
        """Posterior of the candidates, `[m, K]`; rows sum to one.

        Parameters
        ----------
        log_prior, sums : float array `[m, K]`
            Tier 1's log-probabilities (-inf for absent candidates) and summed errors.
        n_trials : int array `[m]`
            Trials behind the sums.
        alive : bool array `[m, K]`, optional
            Candidates that were not dropped; default all.
        frozen : float array `[m, K]`, optional
            Posterior of the dropped ones.
        """
        scores = self.scores(log_prior, sums, n_trials)
        if alive is None or frozen is None:
            return softmax(scores, axis=1)
        left = 1.0 - np.where(alive, 0.0, frozen).sum(axis=1, keepdims=True)
        return np.where(alive, softmax(np.where(alive, scores, -np.inf), axis=1) * left, frozen)

    def asks(self, leader: Label) -> bool:
        """Tell whether tier 2 is asked about an image that tier 1 takes for this class."""
        return self.pays and leader not in self.harmed

    def prior(self, log_prior: np.ndarray) -> np.ndarray:
        """Tier 1's probabilities `[n, C]` at the fitted temperature, from its log-probabilities."""
        return softmax(self.prior_alone * log_prior, axis=1)

    def tier_1(self, log_prior: np.ndarray, stopped_by: str) -> np.ndarray:
        """Tier 1's answer `[n, C]` for one of `TIER_1_ANSWERS`, from its log-probabilities.

        It has the fitted temperature. Only novel images, which are unlike those that this was fitted on, keep tier 1's
        own.
        """
        return softmax(log_prior, axis=1) if stopped_by == "novel" else self.prior(log_prior)

    def over_all_classes(
        self, log_prior: np.ndarray, columns: Iterable[Sequence[int] | np.ndarray], results: Iterable[RerankResult]
    ) -> np.ndarray:
        """Posterior `[n, C]` of all classes from the results for some candidates.

        The candidates share their part of the prior anew, and all other classes keep tier 1's.

        Parameters
        ----------
        log_prior : float array `[n, C]`
            Tier 1's log-probabilities of all classes.
        columns : n int sequences
            Columns of each image's candidates, in the order of its result.
        results : n RerankResult
            Results of the images.
        """
        posterior = self.prior(log_prior)
        for row, log_p, chosen, result in zip(posterior, log_prior, columns, results, strict=True):
            if result.stopped_by in TIER_1_ANSWERS:
                row[:] = self.tier_1(log_p[None], result.stopped_by)[0]
            else:
                row[chosen] = result.posterior * row[chosen].sum()
        return posterior / posterior.sum(axis=1, keepdims=True)

    def sharpened(self, factor: float) -> "Fusion":
        """The same fusion with all log-scores that rest on evidence multiplied by a factor > 0."""
        return replace(
            self, prior_weight=float(self.prior_weight * factor), error_weight=float(self.error_weight * factor)
        )

    def tempered(self, log_prior: np.ndarray, y: np.ndarray) -> "Fusion":
        """The same fusion with the maximum-likelihood `prior_alone` of n images, as `fit` finds it.

        It needs no evidence, so that many images may have a say.

        Parameters
        ----------
        log_prior : float array `[n, C]`
            Tier 1's log-probabilities of images that it has not seen in training.
        y : int array `[n]`
            The right classes.
        """

        def loss(theta: float) -> float:
            likelihood, _ = _log_likelihood(np.exp(theta) * log_prior, y, None, [])
            return theta**2 / (2 * len(y)) - likelihood  # a weak normal prior

        best = minimize_scalar(loss, bounds=(-6, 6), method="bounded")
        return replace(self, prior_alone=float(np.exp(best.x)))

    @classmethod
    def fit(
        cls,
        log_prior: np.ndarray,
        errors: np.ndarray,
        y: np.ndarray,
        alone: tuple[np.ndarray, np.ndarray] | None = None,
        weight: np.ndarray | None = None,
        weight_alone: np.ndarray | None = None,
    ) -> "Fusion":
        """Maximum-likelihood parameters from images that neither tier has seen in training.

        The likelihood is averaged over evidence of 0, 1, 2, 4, … trials, so that one set of parameters serves at
        every moment of a race.

        Parameters
        ----------
        log_prior : float array `[n, C]`
            Tier 1's log-probabilities.
        errors : float array `[n, T, C]`
            Weighted errors in T trials, in the order in which they will be used.
        y : int array `[n]`
            The right classes.
        alone : (float array `[m, K]`, int array `[m]`), optional
            Tier 1's log-probabilities of all classes, if the ones above are of some classes only, and the right
            classes. The temperature of the prior without evidence is fitted on them.
        weight, weight_alone : float array `[n]` and `[m]`, optional
            Weights of the images; default: all count alike.
        """
        # Parameters are fitted as logarithms, which keeps them positive. Errors of n trials add up to
        # cumulative[:, n - 1]: errors (3, 1), (2, 2) of two classes make (3, 1) after one trial, (5, 3) after two.
        counts = [n for n in _TRIAL_COUNTS if n <= errors.shape[1]]
        cumulative = np.cumsum(errors, axis=1, dtype=float)
        seen = [(n, cumulative[:, n - 1]) for n in counts]
        all_log_prior, all_y = (log_prior, y) if alone is None else alone
        weight_alone = weight if alone is None else weight_alone
        start = np.log([1.0, 0.5, 1.0 / _typical_gap(cumulative[:, -1] / errors.shape[1], y), 0.5])

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            fusion = cls(*np.exp(theta).tolist())
            likelihood, (slope,) = _log_likelihood(
                fusion.prior_alone * all_log_prior, all_y, weight_alone, [all_log_prior]
            )
            gradient = np.array([fusion.prior_alone * slope, 0.0, 0.0, 0.0])  # in the logarithms of the parameters
            for n, sums in seen:
                scores = fusion.scores(log_prior, sums, np.full(len(y), n))
                one, (of_prior, of_errors) = _log_likelihood(scores, y, weight, [log_prior, sums])
                shared = fusion.correlation * (n - 1)
                of_errors *= -fusion.error_weight / (1 + shared)
                likelihood += one
                gradient += 0.0, fusion.prior_weight * of_prior, of_errors, -of_errors * shared / (1 + shared)
            from_start, parts = theta - start, 1 + len(seen)
            loss = -likelihood / parts + from_start @ from_start / (2 * len(y))  # a weak normal prior
            return float(loss), -gradient / parts + from_start / len(y)

        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(b - 6, b + 6) for b in start])
        prior_alone, prior_weight, error_weight, correlation = np.exp(best.x).tolist()
        return cls(prior_alone, prior_weight, error_weight, correlation, calibrated=True)


def _log_likelihood(
    scores: np.ndarray, y: np.ndarray, weight: np.ndarray | None, terms: Sequence[np.ndarray]
) -> tuple[float, list[float]]:
    """Compute the mean log-probability of the right classes `[n]` under log-scores `[n, C]`, weighted `[n]` if given.

    Also its derivatives by the weights of terms `[n, C]` in the scores: a term's value for the right class, less its
    mean under the posterior. A class at -inf has no posterior, and adds nothing.
    """
    log_posterior = log_softmax(scores, axis=1)
    posterior, rows = np.exp(log_posterior), np.arange(len(y))
    slopes = []
    for term in terms:
        term = np.where(np.isfinite(term), term, 0.0)
        slopes.append(float(np.average(term[rows, y] - (posterior * term).sum(axis=1), weights=weight)))
    return float(np.average(log_posterior[rows, y], weights=weight)), slopes


def _typical_gap(errors: np.ndarray, y: np.ndarray) -> float:
    """Median distance of the wrong classes' errors `[n, C]` from the right class's: the scale of an error weight."""
    wrong = np.arange(errors.shape[1]) != y[:, None]
    gaps = np.abs(errors - np.take_along_axis(errors, y[:, None], axis=1))[wrong]
    return max(float(np.median(gaps)), 1e-6) if len(gaps) else 1.0
