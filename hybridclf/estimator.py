"""HybridClassifier: two tiers as one scikit-learn classifier."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import persistence
from .allocation import Allocation, Race
from .calibration import Calibration, Recording, fit_calibration
from .checks import check_classes, check_parameters, class_numbers, resolve_denoiser
from .crossfit import CrossFit, aligned_log_proba
from .errors import InvalidInputError, UncalibratedWarning
from .evidence import RerankResult
from .fitting import Parts, Recipe
from .fusion import Fusion
from .images import as_array, is_empty, is_image_list, value_range
from .loop import Step
from .models import LateConditionedDenoiser
from .objectives import resolve_weighting
from .ports import Label
from .proposing import column_of, is_trained, resolve_proposer, shortlist
from .reranker import Reranker
from .training import TrainingConfig

__all__ = ["HybridClassifier"]


class HybridClassifier(ClassifierMixin, BaseEstimator):
    """A fast classifier proposes, a diffusion classifier settles what it leaves open.

    Parameters
    ----------
    proposer : classifier, str or None
        Tier 1. Any scikit-learn classifier (with `predict_proba` or only `decision_function`), a string such as
        "sklearn:SVC" for an installed adapter, or None for logistic regression. It is cloned and fitted, unless it is
        wrapped in `sklearn.frozen.FrozenEstimator` or is no scikit-learn estimator at all: then it is used as it is.
    denoiser : Denoiser, str or None
        Tier 2. An object with the methods of `hybridclf.Denoiser`, a string for an adapter, or None to train a
        late-conditioned one in `fit`.
    top_k : int or None
        Candidates that tier 1 hands over, at least 1; None: as many as it takes to leave 0.1 % of the prior outside.
    allocation : Allocation or None
        Which candidates get the next trial, and when to stop. None: `Race()`, or `PairedTTest()` while nothing is
        calibrated.
    objective : "l2", "l1" or "huber"
        Error between noise and predicted noise.
    weighting : "learned", "uniform" or "heuristic"
        Timestep weights; "learned" ones come with the calibration and are uniform without it.
    image_shape : tuple of int or None
        (H, W) or (H, W, C) if X holds flattened images.
    architecture : "auto", "mlp" or "unet"
        Denoiser to train; "auto": an MLP for vectors and images of at most 256 numbers, else a U-Net.
    cv : int or float
        What the fusion is fitted on. An int: out-of-fold predictions of that many folds, both tiers refitted for each.
        A float in (0, 1): that share of the images, held out of the training of both tiers for good.
    max_iter : int
        Passes over the data in the denoiser's training, at most.
    learning_rate : float
        Peak learning rate of that training.
    wrong_class_weight : float
        Weight of its wrong-class term; 0 trains denoising alone.
    validation_fraction : float
        Share of the training images held out for early stopping, in (0, 1).
    n_iter_no_change : int
        Passes without a better held-out loss after which training stops.
    batch_size : int or None
        Denoiser batch in re-ranking; None: chosen by its type and device.
    device : str
        "auto" (a GPU if there is one) or what torch calls the device.
    dtype : str or None
        What the trained denoiser computes in, "float64", "float32", "bfloat16" or "float16"; None: float64 for an MLP,
        float32 for a U-Net.
    verbose : bool
        Whether to show progress bars.
    random_state : int, RandomState or None
        Decides everything: folds, training and the noise of all trials.

    Attributes
    ----------
    classes_ : array `[C]`
        The labels.
    proposer_, denoiser_ : objects
        The fitted tiers.
    fusion_ : Fusion
        How prior and evidence become the posterior.
    calibration_ : Calibration or None
        What was learned from labelled images beside the tiers; None if nothing was, and `predict_proba` then ranks
        but is no calibrated probability.
    image_shape_ : tuple of int or None
        (H, W, C) or (d,) of one item; None where the tiers take images of any size.
    pixel_range_ : tuple of float or None
        Lowest and highest value in the X of `fit`, 0 and 255 if it was uint8; what black and white of an image file
        stand for. None where no array was fitted on.
    n_features_in_ : int
        Numbers in one item.
    n_iter_ : int
        Passes behind the trained denoiser; absent if it was given.

    Notes
    -----
    What `fit` does:

    ==============  ========  =====================================  ===========================
    proposer        denoiser  ``fit(X, y)``                          ``fit(None, labels)``
    ==============  ========  =====================================  ===========================
    unfitted, None  None      fits both; fusion from folds that      error: nothing to train on
                              refit both
    frozen, named   None      trains the denoiser; fusion from       error
                              folds that retrain it (X must be new
                              to the proposer)
    unfitted, None  given     fits the proposer; fusion from folds   error
                              that refit it (X must be new to the
                              denoiser)
    frozen, named   given     trains nothing; fusion from all of X   uses both as they are,
                              (X must be new to both)                uncalibrated
    ==============  ========  =====================================  ===========================

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> clf = HybridClassifier(random_state=0).fit(digits.images, digits.target)  # doctest: +SKIP
    >>> clf.predict(digits.images[:3])  # doctest: +SKIP
    array([0, 1, 2])
    """

    def __init__(
        self,
        proposer: Any = None,
        denoiser: Any = None,
        *,
        top_k: int | None = None,
        allocation: Allocation | None = None,
        objective: str = "l2",
        weighting: str = "learned",
        image_shape: tuple[int, ...] | None = None,
        architecture: str = "auto",
        cv: int | float = 3,
        max_iter: int = 150,
        learning_rate: float = 2e-3,
        wrong_class_weight: float = 1.0,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        batch_size: int | None = None,
        device: str = "auto",
        dtype: str | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.proposer = proposer
        self.denoiser = denoiser
        self.top_k = top_k
        self.allocation = allocation
        self.objective = objective
        self.weighting = weighting
        self.image_shape = image_shape
        self.architecture = architecture
        self.cv = cv
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.wrong_class_weight = wrong_class_weight
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit both tiers and the fusion; the table in the class's notes says what that means for which parts.

        Parameters
        ----------
        X : array `[n, d]`, `[n, H, W]`, `[n, H, W, C]`, list of n PIL images, or None
            Images or vectors, uint8 or real numbers in any fixed range; None for zero-shot use.
        y : array `[n]`
            Labels; with X=None the label names themselves.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            For parameters out of range, unusable images or labels, or X=None where a part would have to be trained.
        UnknownSpecError
            For a string that no adapter answers to.
        """
        check_parameters(self)
        proposer, denoiser = resolve_proposer(self.proposer), resolve_denoiser(self.denoiser)
        if X is None:
            return self._fit_labels(proposer, denoiser, y)
        of_one_size = denoiser is None or isinstance(denoiser, LateConditionedDenoiser)
        self._takes_arrays = of_one_size or not getattr(proposer, "takes_images", False)
        images, y = self._read_labelled(X, y, reset=True)
        self.classes_ = self._classes(proposer, y)
        numbers = class_numbers(y, self.classes_)
        check_classes(self.classes_, numbers, trains=denoiser is None)
        self._seed = check_random_state(self.random_state).randint(2**31 - 1)
        parts, recording = self._cross_fit(proposer, denoiser).fit(images, numbers, self.cv)
        self._keep(parts)
        self._calibrate(recording)
        return self

    def calibrate(self, X: Any, y: Any) -> Self:
        """Fit the fusion alone, on images that neither tier was trained on.

        Parameters
        ----------
        X, y
            As for `fit`; a few dozen images do.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        check_parameters(self)
        images, y = self._read_labelled(X, y)
        parts = Parts(self.proposer_, self.denoiser_, None)
        self._calibrate(self._cross_fit(*parts[:2]).record(parts, images, class_numbers(y, self.classes_)))
        return self

    def _cross_fit(self, proposer: Any, denoiser: Any) -> CrossFit:
        training = TrainingConfig(
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            wrong_class_weight=self.wrong_class_weight,
            n_iter_no_change=self.n_iter_no_change,
        )
        dtype = None if self.dtype is None else getattr(torch, self.dtype)
        recipe = Recipe(
            proposer=proposer,
            denoiser=denoiser,
            architecture=self.architecture,
            training=training,
            validation_fraction=self.validation_fraction,
            device=self.torch_device(),
            dtype=dtype,
            progress=self.verbose,
        )
        return CrossFit(recipe, self.classes_, self._seed, self.objective, self.batch_size)

    def _fit_labels(self, proposer: Any, denoiser: Any, labels: Any) -> Self:
        """Zero-shot: both parts as they are, for these labels."""
        if denoiser is None or not is_trained(proposer):
            raise InvalidInputError(
                "fit(None, labels) needs two tiers that are trained already: pass a denoiser, and a proposer that is "
                "named or wrapped in FrozenEstimator; to train them pass images and their labels, fit(X, y)"
            )
        if labels is None or len(labels) < 2 or len(set(labels)) != len(labels):
            raise InvalidInputError(f"labels must be at least two different names, got {labels!r}")
        if hasattr(proposer, "fit") and not hasattr(proposer, "classes_"):
            proposer = proposer.fit(None, labels)
        self.classes_ = np.asarray(labels)
        self._takes_arrays = not getattr(proposer, "takes_images", False)
        self._seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.image_shape_: tuple[int, ...] | None = self.image_shape
        self.pixel_range_: tuple[float, float] | None = None
        column_of(proposer, self.classes_)
        self._keep(Parts(proposer, denoiser, None))
        self._calibrate(None)
        return self

    def _classes(self, proposer: Any, y: np.ndarray) -> np.ndarray:
        """The labels in y, or all that a trained proposer knows: images for calibration need not show every class."""
        if not is_trained(proposer):
            return np.unique(y)
        if not hasattr(proposer, "classes_"):
            proposer.fit(None, np.unique(y))
        return np.asarray(proposer.classes_)

    def _keep(self, parts: Parts) -> None:
        self.proposer_, self.denoiser_ = parts.proposer, parts.denoiser
        for name in ("n_iter_", "training_log_"):  # an earlier fit may have left them
            self.__dict__.pop(name, None)
        if parts.log is not None:
            self.n_iter_ = parts.log.n_iter
            self.training_log_ = parts.log

    def _calibrate(self, recording: Recording | None) -> None:
        self.calibration_: Calibration | None = None
        self.fusion_ = Fusion()
        if recording is None:
            return
        if not len(recording.y):
            warnings.warn(
                "no image has finite errors, its own class among them, so the posterior stays uncalibrated; "
                "check what the denoiser predicts for these images",
                UncalibratedWarning,
                stacklevel=3,
            )
            return
        weighting = resolve_weighting(self.weighting)
        self.calibration_ = fit_calibration(recording, self.allocation or Race(), self.top_k, weighting)
        self.fusion_ = self.calibration_.fusion

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, X: Any, reset: bool = False) -> Any:
        """X as an array of the fitted shape, or as it is where both tiers take images of any size."""
        if is_empty(X):
            raise InvalidInputError("X is empty; give at least one image")
        if not self._takes_arrays:
            if reset:
                self.image_shape_ = self.pixel_range_ = None
            return X
        if not is_image_list(X) and getattr(X, "ndim", 2) <= 2:
            X = validate_data(self, X, reset=reset)
        elif reset:
            self.__dict__.pop("feature_names_in_", None)  # an earlier fit may have left them
        images = as_array(X, self.image_shape if reset else self.image_shape_)
        if reset:
            self.image_shape_ = images.shape[1:]
            self.n_features_in_ = int(np.prod(self.image_shape_))
            self.pixel_range_ = value_range(images)
        return images

    def _read_labelled(self, X: Any, y: Any, reset: bool = False) -> tuple[Any, np.ndarray]:
        if y is None:
            raise InvalidInputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        images = self._read(X, reset)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(images, y)
        return images, y

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
        images = self._read(X)
        return self.reranker().stream(images, *self._propose(images)[:2])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior `[n, C]` of all classes, rows sum to one; classes that were no candidates keep tier 1's share."""
        return self.decide(X)[0]

    def decide(self, X: Any) -> tuple[np.ndarray, list[RerankResult]]:
        """`predict_proba` and `rerank` at the cost of one: the posterior `[n, C]` and the n results behind it."""
        check_is_fitted(self)
        images = self._read(X)
        candidates, log_prior, posterior = self._propose(images)
        results = self.reranker().rerank(images, candidates, log_prior, progress=self.verbose)
        number = {label: i for i, label in enumerate(self.classes_.tolist())}
        for row, result in zip(posterior, results, strict=True):
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
        learned = self.calibration_
        stage = Reranker(
            self.denoiser_,
            allocation=allocation or self.allocation,
            fusion=fusion or self.fusion_,
            objective=self.objective,
            weighting=resolve_weighting(self.weighting) or (learned.weighting if learned else None),
            order=learned.order if learned else None,
            batch_size=self.batch_size,
            random_state=self._seed,
        )
        stage.condition(self.classes_.tolist())  # once for all, whatever the candidates
        return stage

    def torch_device(self) -> torch.device:
        """The device that the parameter `device` stands for on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    # --- saving -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier into a folder, as JSON, safetensors and skops.

        Parameters
        ----------
        folder : path
            A new or empty folder, or a saved model to be replaced.

        Raises
        ------
        SavedModelError
            If the folder holds something else, or a part is an object that was not given as a spec string.
        """
        check_is_fitted(self)
        persistence.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path, trusted: Sequence[str] = ()) -> Self:
        """Read a classifier that `save` wrote; it predicts exactly as the one that was saved.

        Parameters
        ----------
        folder : path
            The saved model.
        trusted : sequence of str
            Types in the saved proposer that may be loaded beyond those known to be safe.

        Raises
        ------
        SavedModelError
            If the folder is no saved model, is damaged, of a newer version, or needs types to be trusted.
        """
        return cast(Self, persistence.load(cls, folder, trusted))

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """An embedded model by name, such as "digits"; nothing is downloaded.

        Raises
        ------
        InvalidInputError
            If there is none of that name.
        """
        return cls.load(persistence.pretrained_folder(name))

    def _propose(self, images: Any) -> tuple[list[list[Label]], list[np.ndarray], np.ndarray]:
        """Candidates of each image with their log prior, and tier 1's probabilities `[n, C]` of all classes."""
        log_prior = aligned_log_proba(self.proposer_, images, self.classes_)
        prior = self.fusion_.prior(log_prior)
        chosen = shortlist(prior, self.top_k)
        return (
            [self.classes_[c].tolist() for c in chosen],
            [p[c] for p, c in zip(log_prior, chosen, strict=True)],
            prior,
        )
