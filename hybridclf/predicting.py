"""What a fitted pair of tiers does: answers, with candidates, posterior and results behind it; saving and loading."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import catalog, persistence
from .data.arrays import Items, as_array, in_range, is_empty, is_image_list, is_pil_list, scaled, value_range
from .data.image_files import read_pictures
from .data.tables import TableEncoder, is_numeric
from .denoising.weighting import resolve_weighting
from .errors import InvalidInputError
from .fitting.calibration import Calibration
from .fitting.tiers import for_labels
from .fitting.validation import check_parameters
from .fitting.worth import Worth
from .names import Prompts
from .ports import Label
from .proposer import accepts_gaps, aligned_log_proba, shortlist
from .reranker import Reranker
from .reranking.allocation import Allocation
from .reranking.evidence import TIER_1_ANSWERS, RerankResult
from .reranking.fusion import Fusion
from .reranking.loop import Step
from .reranking.novelty import UsualValues

__all__ = ["TwoTierPredictor"]


class TwoTierPredictor(ClassifierMixin, BaseEstimator):
    """Base of `HybridClassifier`: all that it does once it is fitted.

    The attributes are the estimator's parameters and what its `fit` leaves behind, described there.
    """

    top_k: int | None
    allocation: Allocation | None
    objective: str
    weighting: str
    image_shape: tuple[int, ...] | None
    batch_size: int | Literal["auto"] | None
    device: str
    verbose: bool

    classes_: np.ndarray
    proposer_: Any
    denoiser_: Any
    fusion_: Fusion
    calibration_: Calibration | None
    image_shape_: tuple[int, ...] | None
    pixel_range_: tuple[float, float] | None
    n_features_in_: int
    worth_: Worth | None
    _takes_arrays: bool
    _table: TableEncoder | None
    _usual: UsualValues | None
    _objective: str
    _weighting: str
    _seed: int

    # --- predicting ---------------------------------------------------------------------------------------------------

    def propose(self, X: Any) -> tuple[list[list[Label]], list[np.ndarray]]:
        """What tier 1 hands over: each image's candidates, best first, and their log-probabilities `[k]`."""
        check_is_fitted(self)
        return self._propose(self._read(X))[:2]

    def rerank(self, X: Any) -> list[RerankResult]:
        """What re-ranking made of each image: ranking, posterior among the candidates, cost and stopping reason.

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
        """The same as `rerank`, as a generator of its steps, to be watched."""
        check_is_fitted(self)
        items = self._read(X)
        candidates, log_prior, _ = self._propose(items)
        return self.reranker().stream(items.images, candidates, log_prior, self._novel(items))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior `[n, C]` of all classes, rows sum to one; classes that were no candidates keep tier 1's share."""
        return self.decide(X)[0]

    def decide(self, X: Any) -> tuple[np.ndarray, list[RerankResult]]:
        """`predict_proba` and `rerank` at the cost of one: the posterior `[n, C]` and the n results behind it."""
        check_is_fitted(self)
        items = self._read(X)
        candidates, log_prior, own = self._propose(items)
        posterior = self.fusion_.prior(own)
        stage = self.reranker()
        stage.check_prior = False  # it is that of the tier 1 which the fusion was fitted for
        results = stage.rerank(items.images, candidates, log_prior, novel=self._novel(items), progress=self.verbose)
        number = {label: i for i, label in enumerate(self.classes_.tolist())}
        for row, log_p, result in zip(posterior, own, results, strict=True):
            if result.stopped_by in TIER_1_ANSWERS:
                row[:] = softmax(log_p)
                continue
            columns = [number[label] for label in result.candidates]
            row[columns] = result.posterior * row[columns].sum()
        return posterior / posterior.sum(axis=1, keepdims=True), results

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of `predict_proba`, `[n, C]`; never below that of the smallest normal float."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(float).tiny))

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-posterior `[n, C]`; with two classes the log-odds `[n]` of the second."""
        scores = self.predict_log_proba(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The label with the highest posterior, `[n]`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

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
        stage.condition(self.classes_.tolist())  # once for all, whatever the candidates
        return stage

    def with_labels(self, labels: Sequence[Label]) -> Self:
        """This fitted classifier asked about other labels: a copy, at the cost of encoding what is new among them.

        It shares both tiers, settings and noise, and keeps what `calibrate` learned (fusion, timestep weights, order of
        trials), so that its posterior is as well calibrated as the new labels resemble those calibrated on.
        `fit(None, labels)`, by contrast, loads both tiers again and forgets the calibration.

        Parameters
        ----------
        labels : sequence of C labels
            At least two different ones; a name that repeats gets its position behind it, "crane (#517)". Any names, if
            both tiers are models of text; else some of the classes that both tiers know.

        Returns
        -------
        HybridClassifier
            Fitted; the original stays as it is.

        Raises
        ------
        InvalidInputError
            For fewer than two different labels, for an empty one, or for some that a tier does not know or cannot tell
            apart.
        """
        check_is_fitted(self)
        other = copy(self)
        other.proposer_, other.classes_ = for_labels(self.proposer_, self.denoiser_, labels)
        return other

    def _propose(self, items: Items) -> tuple[list[list[Label]], list[np.ndarray], np.ndarray]:
        """Candidates of each image with their log prior, and tier 1's log-probabilities `[n, C]` of all classes."""
        log_prior = aligned_log_proba(self.proposer_, items, self.classes_)
        prior = self.fusion_.prior(log_prior)
        chosen = shortlist(prior, self.top_k)
        return (
            [self.classes_[c].tolist() for c in chosen],
            [p[c] for p, c in zip(log_prior, chosen, strict=True)],
            log_prior,
        )

    def _novel(self, items: Items) -> np.ndarray | None:
        """Tell which vectors have numbers far from all that `fit` saw, bool `[n]`; None for images."""
        return None if self._usual is None else self._usual.novel(items.images)

    # --- saving -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier into a folder, as JSON, safetensors and skops.

        A tier that is named by a spec string is saved as that string, relative to the folder if its path lies in there:
        such a folder can be moved as a whole.

        Parameters
        ----------
        folder : path
            A new or empty folder, one that holds such tiers and nothing else, or a saved model to be replaced.

        Raises
        ------
        SavedModelError
            If the folder holds something else, or a part is an object that was not given as a spec string.
        """
        check_is_fitted(self)
        persistence.save(self, folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        trusted: Sequence[str] = (),
        prompts: Prompts | None = None,
        device: str | None = None,
    ) -> Self:
        """Read a classifier that `save` wrote; it predicts exactly as the one that was saved.

        Parameters
        ----------
        folder : path
            The saved model.
        trusted : sequence of str
            Types in the saved proposer that may be loaded beyond those known to be safe.
        prompts : str, function or sequence of these, optional
            Templates to use in place of those that it was saved with.
        device : str, optional
            "auto" or what torch calls the device. Default: what it was saved with, if that is here, else "auto".

        Raises
        ------
        SavedModelError
            If the folder is no saved model, is damaged, of a newer version, or needs types to be trusted.
        InvalidInputError
            For prompts that neither tier reads, or a device that is not here.
        """
        return cast(Self, persistence.load(cls, folder, trusted, prompts, device))

    @classmethod
    def from_pretrained(cls, name: str | Path, prompts: Prompts | None = None, device: str | None = None) -> Self:
        """An embedded model by name, such as "digits", or else a saved one by its folder; nothing is downloaded.

        Parameters
        ----------
        name : str or path
            `hybridclf models` lists the names.
        prompts, device
            As for `load`.

        Raises
        ------
        InvalidInputError
            If there is neither a model of that name nor such a folder, or as for `load`.
        SavedModelError
            As for `load`.
        """
        return cls.load(catalog.model_folder(name), prompts=prompts, device=device)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, X: Any, reset: bool = False) -> Items:
        """X for either tier; images as an array of the fitted shape, or as they are where tiers take any size."""
        if is_empty(X):
            raise InvalidInputError("X is empty; give at least one image")
        shape = self.image_shape if reset else self.image_shape_
        X = read_pictures(X, shape)
        if not self._takes_arrays:
            if reset:
                self.image_shape_ = self.pixel_range_ = self._table = None
            return Items(X, X)
        table = not is_image_list(X) and getattr(X, "ndim", 2) <= 2
        if table and (self._needs_encoder(X) if reset else self._table is not None):
            return self._read_mixed(X, reset)
        if table:
            given, X = X, validate_data(self, X, reset=reset)
        images = as_array(X, shape)
        if reset:
            self._table, self.image_shape_, self.pixel_range_ = None, images.shape[1:], value_range(images)
            self.n_features_in_ = int(np.prod(self.image_shape_))
        if is_pil_list(X):
            images = scaled(images, self.pixel_range_)
        elif images.ndim == 4 and self.pixel_range_ and not reset:  # in a table 255 is a number
            images = in_range(images, self.pixel_range_)
        return Items(given if table and images.ndim == 2 and hasattr(given, "shape") else images, images)

    def _needs_encoder(self, X: Any) -> bool:
        """Tell whether a table may have gaps, or has columns that are no numbers."""
        return accepts_gaps(self.proposer) or (self.proposer is not None and not is_numeric(X))

    def _read_mixed(self, X: Any, reset: bool) -> Items:
        """A table with gaps or text: as it is for tier 1, as numbers for tier 2."""
        validate_data(self, X, skip_check_array=True, reset=reset)
        given = X if hasattr(X, "shape") else np.asarray(X)
        if reset:
            self._table = TableEncoder().fit(given)
        assert self._table is not None
        images = as_array(self._table.transform(given), self.image_shape if reset else self.image_shape_)
        if reset:
            self.image_shape_, self.pixel_range_ = images.shape[1:], value_range(images)
        return Items(given, images)

    def _read_labelled(self, X: Any, y: Any, reset: bool = False) -> tuple[Items, np.ndarray]:
        if y is None:
            raise InvalidInputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        items = self._read(X, reset)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(items.images, y)
        return items, y
