"""Predictions of `HybridClassifier`: candidates, re-ranking, posteriors, novelty and captions."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from ..captions import CaptionScores, check_captions, different_texts, score_captions, without_template
from ..data.arrays import Items
from ..denoising.weighting import resolve_weighting
from ..fitting.drift import looks_of
from ..fitting.outliers import check_novel_label, lowest_errors, name_novel, novelty_test, reject_novel, traits_of
from ..fitting.recording import RECORDED_CLASSES
from ..fitting.validation import check_parameters
from ..ports import Label
from ..proposer import aligned_log_proba, shortlist
from ..reranker import Reranker
from ..reranking.allocation import Allocation, FixedTrials, Race
from ..reranking.evidence import RerankResult
from ..reranking.fusion import Fusion
from ..reranking.loop import Step
from .fit import FitsTiers

__all__ = ["Predicts"]


class Predicts(FitsTiers):
    """Predicting part of `HybridClassifier`: each method takes images as `fit` does."""

    def propose(self, X: Any) -> tuple[list[list[Label]], list[np.ndarray]]:
        """Tier 1's candidates of each image, best first, and their log-probabilities `[k]`."""
        check_is_fitted(self)
        return self._propose(self._read(X))[:2]

    def rerank(self, X: Any) -> list[RerankResult]:
        """Re-rank images: ranking, posterior among the candidates, cost and reason for stopping of each.

        Parameters
        ----------
        X : as for `fit`
            n images.

        Returns
        -------
        list of RerankResult `[n]`
        """
        return self.decide(X)[1]

    def stream(self, X: Any) -> Iterator[Step]:
        """Generate the steps of `rerank`, to be watched; none is rejected here, `novelty` tells.

        An exact tie stays in tier 1's order.
        """
        check_is_fitted(self)
        items = self._read(X)
        candidates, log_prior, _ = self._propose(items)
        return self.reranker().stream(items.images, candidates, log_prior, self._aside(items))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior `[n, C]` of all classes, rows sum to one; classes that were no candidates keep tier 1's share."""
        check_is_fitted(self)
        return self._decide(self._read(X))[0]

    def decide(self, X: Any) -> tuple[np.ndarray, list[RerankResult]]:
        """`predict_proba` and `rerank` at the cost of one: the posterior `[n, C]` and the n results behind it.

        Raises
        ------
        InvalidInputError
            With `reject`, if there was no calibration on images of one size, or one on too few for this rate.
        """
        check_is_fitted(self)
        items = self._read(X)
        if self.reject is None:
            return self._decide(items)
        novelty_test(self)  # first, as it may raise
        log_proba = self._log_proba(items)
        p_values, evaluations = self._p_values(items, log_proba)
        posterior, results = self._decide(items, log_proba)
        return posterior, reject_novel(results, p_values, evaluations, self.reject)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of `predict_proba`, `[n, C]`; never below that of the smallest normal float."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(float).tiny))

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-posterior `[n, C]`; with two classes the log-odds `[n]` of the second."""
        scores = self.predict_log_proba(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the answers of `predict` that equal y; the answer to an image that is rejected is `novel_label`."""
        if self.reject is None:
            return float(super().score(X, y, sample_weight))
        answers, y = self.predict(X), column_or_1d(y)
        check_consistent_length(answers, y, sample_weight)
        return float(np.average(answers == y, weights=sample_weight))

    def predict(self, X: Any) -> np.ndarray:
        """The labels with the highest posterior, `[n]`; with `reject`, `novel_label` for images of no class."""
        posterior, results = self.decide(X)
        labels = self.classes_[posterior.argmax(axis=1)]
        if self.reject is None:
            return labels
        check_novel_label(self.novel_label, self.classes_)
        return name_novel(labels, results, self.novel_label)

    def novelty(self, X: Any) -> np.ndarray:
        """Conformal p-values `[n]` of images against the calibration images: low for what is none of the classes.

        Of images drawn as those were, at most a share a has p ≤ a. Looks decide, and the lowest error in one trial of
        tier 1's first twenty classes. The rate is exact after `calibrate` for images whose right class is among
        the twenty, and close after a `fit` with folds, as the tiers of the folds are not those that answer.

        Raises
        ------
        InvalidInputError
            If there was no calibration on at least 60 images of one size.
        """
        check_is_fitted(self)
        return self._p_values(self._read(X))[0]

    def reranker(self, allocation: Allocation | None = None, fusion: Fusion | None = None) -> Reranker:
        """The fitted second tier as a stage of its own, with the fitted allocation and fusion unless others are given.

        `clf.reranker(FixedTrials(256), Fusion())` is the diffusion classifier alone, on the same weights and noise.
        """
        check_is_fitted(self)
        check_parameters(self)  # set_params may have changed them
        learned = self.calibration_
        stage = Reranker(
            self.denoiser_,
            allocation=allocation or self.allocation,
            fusion=fusion or self.fusion_,
            objective=self._objective,
            weighting=resolve_weighting(self._weighting) or (learned.weighting if learned else None),
            order=learned.order if learned else None,
            batch_size=self.batch_size,
            random_state=self._seed,
        )
        if fusion is None and learned is not None and learned.unusual_alone:
            stage.sets_aside = lambda images: self._aside(self._read(images))
        stage.condition(self.classes_.tolist())  # once for all, whatever the candidates
        return stage

    def score_captions(
        self, images: Any, captions: Sequence[Sequence[str]] | Sequence[str], *, trials: int = 32
    ) -> list[CaptionScores]:
        """Score captions of images by both tiers, any texts and not the labels; prompt templates are left out.

        All captions of all images share their trials, which are evenly spaced. Scores are errors of the denoiser, with
        the classifier's objective and timestep weights. Between images they are compared by what a caption gains over
        no prompt, as DiffusionITM does; errors alone compare captions of one image (Equation 9 of arXiv 2303.16203).

        Parameters
        ----------
        images : as for `fit`
            n images.
        captions : n sequences of str, or sequence of str
            The captions of each image, of any number; or the same for all images.
        trials : int
            Trials of each image, at least 1; each costs an evaluation per caption and one for no prompt.

        Returns
        -------
        list of CaptionScores `[n]`

        Raises
        ------
        InvalidTypeError
            If tier 2 is no model of text.
        InvalidInputError
            For unusable images, for captions that are empty, or for some that are different and read the same to the
            model.

        Examples
        --------
        >>> clf = HybridClassifier.from_pretrained("shapes")  # doctest: +SKIP
        >>> captions = ["a red star above a blue ring", "a blue star above a red ring"]  # doctest: +SKIP
        >>> clf.score_captions(["scene.png"], captions)[0].gain  # doctest: +SKIP
        array([11.2, 4.9])
        """
        check_is_fitted(self)
        asked = copy.copy(self)
        asked.denoiser_ = without_template(self.denoiser_)
        items = self._read(images)
        listed = check_captions(captions, len(items))
        asked.classes_ = np.array(different_texts(listed))
        stage = asked.reranker(FixedTrials(trials), Fusion())
        return score_captions(self.proposer_, stage, items, listed, self.verbose)

    def _log_proba(self, items: Items) -> np.ndarray:
        """Tier 1's own log-probabilities `[n, C]` of all classes."""
        return aligned_log_proba(self.proposer_, items, self.classes_)

    def _log_prior(self, items: Items) -> np.ndarray:
        """Tier 1's log-probabilities `[n, C]` of all classes, flatter for images that look unlike the calibration's."""
        return self._flattened(self._log_proba(items), items)

    def _flattened(self, log_proba: np.ndarray, items: Items) -> np.ndarray:
        """The log-probabilities `[n, C]`, flatter for images that look unlike the calibration's."""
        drift = self.calibration_ and self.calibration_.drift
        return drift(log_proba, items.images) if drift else log_proba

    def _propose(
        self, items: Items, log_proba: np.ndarray | None = None
    ) -> tuple[list[list[Label]], list[np.ndarray], np.ndarray]:
        """Candidates of each image with their log prior, and the log prior `[n, C]` of all classes.

        Tier 1 is not asked again where its `log_proba` `[n, C]` is known; likewise below.
        """
        log_prior = self._log_prior(items) if log_proba is None else self._flattened(log_proba, items)
        prior = self.fusion_.prior(log_prior)
        chosen = self._shortlist(prior)
        return (
            [self.classes_[c].tolist() for c in chosen],
            [p[c] for p, c in zip(log_prior, chosen, strict=True)],
            log_prior,
        )

    def _shortlist(self, prior: np.ndarray) -> list[np.ndarray]:
        """Positions of each image's candidates, best first, from the prior `[n, C]`.

        A calibration has never seen more candidates than were recorded for it.
        """
        return shortlist(prior, self.top_k, None if self.calibration_ is None else RECORDED_CLASSES)

    def _novel(self, items: Items) -> np.ndarray:
        """Tell which vectors have numbers far from all that `fit` saw, bool `[n]`; no image has."""
        return np.zeros(len(items), dtype=bool) if self._usual is None else self._usual.novel(items.images)

    def _usual_looking(self, items: Items) -> np.ndarray:
        """Tell which images tier 2 is not asked about, as they look usual and it pays on others alone, bool `[n]`."""
        learned = self.calibration_
        if learned is None or not learned.unusual_alone:
            return np.zeros(len(items), dtype=bool)
        assert learned.drift is not None  # it says what is unusual
        return ~learned.drift.unusual(looks_of(items.images, *learned.drift.pixel_range))

    def _aside(self, items: Items) -> list[str]:
        """Reasons why tier 1 answers, "" for images to ask tier 2 about, `[n]`."""
        return np.where(self._novel(items), "novel", np.where(self._usual_looking(items), "off", "")).tolist()

    def _decide(self, items: Items, log_proba: np.ndarray | None = None) -> tuple[np.ndarray, list[RerankResult]]:
        stage = self.reranker()  # first, as it checks the parameters
        candidates, log_prior, all_log_prior = self._propose(items, log_proba)
        stage.check_prior = False  # it is that of the tier 1 which the fusion was fitted for
        results = stage.rerank(items.images, candidates, log_prior, aside=self._aside(items), progress=self.verbose)
        posterior = self._posterior(all_log_prior, results)
        return posterior, self._tied_by_class(posterior, results)

    def _tied_by_class(self, posterior: np.ndarray, results: Sequence[RerankResult]) -> list[RerankResult]:
        """The results, where the first class of those with the highest posterior `[n, C]` leads, as in `predict`.

        The reranker, which does not know the classes, has a tie in tier 1's order.
        """
        classes = self.classes_.tolist()
        return [
            result if result.ranking[0] == classes[row.argmax()] else _ranked_by(row, classes, result)
            for row, result in zip(posterior, results, strict=True)
        ]

    def _posterior(self, log_prior: np.ndarray, results: Sequence[RerankResult]) -> np.ndarray:
        """Posterior `[n, C]` of all classes from their log prior `[n, C]` and the results of some candidates."""
        number = {label: i for i, label in enumerate(self.classes_.tolist())}
        columns = [[number[label] for label in result.candidates] for result in results]
        return self.fusion_.over_all_classes(log_prior, columns, results)

    def _p_values(self, items: Items, log_proba: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """P-values of images and what each cost in evaluations, `[n]` each."""
        test = novelty_test(self)
        traits, evaluations = self._traits(items, test.pixel_range, log_proba)
        return test.p_values(traits), evaluations

    def _traits(
        self, items: Items, pixel_range: tuple[float, float], log_proba: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Traits `[n, 6]` of images, and the evaluations `[n]` behind them."""
        candidates = [self.classes_.tolist()] * len(items)
        if len(self.classes_) > RECORDED_CLASSES:
            log_proba = self._log_proba(items) if log_proba is None else log_proba
            candidates = self.classes_[np.argsort(-log_proba, axis=1, kind="stable")[:, :RECORDED_CLASSES]].tolist()
        stage = self.reranker(FixedTrials(1), Fusion())
        stage.plan = self.reranker(Race(max_trials=1)).plan  # its most informative trial
        lowest, evaluations = lowest_errors(stage, items.images, candidates, self.verbose)
        return traits_of(looks_of(items.images, *pixel_range), lowest), evaluations


def _ranked_by(posterior: np.ndarray, classes: list[Label], result: RerankResult) -> RerankResult:
    """The result with its candidates ranked by the posterior `[C]` of all classes."""
    order = (classes[i] for i in np.argsort(-posterior, kind="stable"))
    return replace(result, ranking=tuple(label for label in order if label in result.candidates))
