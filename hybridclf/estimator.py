"""HybridClassifier: two tiers as one scikit-learn classifier."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import MetadataRouter
from sklearn.utils.validation import check_is_fitted

from . import persistence
from .captions import CaptionScores, check_captions, different_texts, score_captions, without_template
from .data.arrays import Items
from .denoising.weighting import resolve_weighting
from .devices import as_device
from .errors import InvalidInputError, UncalibratedWarning, choices
from .explanation import Explanation, explain
from .fitting.calibration import RECORDED_CLASSES, Calibration, Recording, calibrate, worth_with
from .fitting.cross_fit import CrossFit, FittedTiers, Sample, TierFitter, pixel_span
from .fitting.drift import looks_of
from .fitting.guarantee import FIT_SHARE, Guarantee, Replays, check_enough, find_guarantee
from .fitting.outliers import lowest_errors, name_novel, novelty_test, reject_novel, traits_of
from .fitting.reading import ReadsItems
from .fitting.resolve_tiers import for_labels, resolve_tiers
from .fitting.routing import metadata_of, router_of
from .fitting.splitting import hold_out
from .fitting.validation import check_classes, check_labels, check_parameters, class_numbers
from .fitting.worth import Worth
from .models import LateConditionedDenoiser
from .ports import Label
from .pretrained import catalog
from .proposer import accepts_gaps, aligned_log_proba, default_proposer, is_trained, shortlist
from .reranker import Reranker
from .reranking.allocation import Allocation, FixedTrials, Race
from .reranking.evidence import TIER_1_ANSWERS, RerankResult
from .reranking.fusion import Fusion
from .reranking.loop import Step
from .reranking.novelty import UsualValues
from .training.denoiser import TrainingConfig
from .utils.bounds import check_number, check_whole, draw_seed
from .utils.names import Prompts

__all__ = ["HybridClassifier"]


class HybridClassifier(ClassifierMixin, ReadsItems, BaseEstimator):
    """Image classifier of two tiers: a fast classifier proposes, a diffusion classifier re-ranks.

    Parameters
    ----------
    proposer : classifier, function, str or None
        Tier 1. Any scikit-learn classifier (with `predict_proba` or only `decision_function`), a string such as
        "sklearn:SVC" for an installed adapter, or None for logistic regression. What has `fit` and `get_params` is
        cloned and fitted on X as the user gave it, column names, types and gaps included; what is wrapped in
        `sklearn.frozen.FrozenEstimator` or is no estimator is used as it is. That may be a function from n images to
        log-probabilities `[n, C]`, whose columns are the labels of
        `fit(None, labels)`, or else those in y, sorted.
    denoiser : Denoiser, str or None
        Tier 2. An object with the methods of `hybridclf.Denoiser`, a string for an adapter, or None to train a
        late-conditioned one in `fit`. Clones of the classifier share the object.
    top_k : int or None
        Candidates that tier 1 hands over, at least 1; None: as many as it takes to leave 0.1 % of the prior outside.
    prompts : str, function, sequence of these or None
        Templates with {} where the label goes, or functions from a label to its prompt, for the tiers that are models
        of text and named by a string; None: the adapters' own, "a photo of a {}.". Functions cannot be saved.
    allocation : Allocation or None
        Decides which candidates get the next trial, and when to stop. None: `Race()`, or `PairedTTest()` while nothing
        is calibrated.
    objective : "l2", "l1", "huber", "vlb" or "l2+vlb"
        Error between noise and predicted noise; the last two need a denoiser that has learned its variance.
    weighting : "learned", "uniform" or "heuristic"
        Timestep weights; "learned" ones come with the calibration, and without it are those the denoiser was trained
        with.
    image_shape : tuple of int or None
        (H, W) or (H, W, C) if X holds flattened images.
    architecture : "auto", "mlp" or "unet"
        Denoiser to train; "auto": an MLP for vectors and images of at most 256 numbers, else a U-Net.
    cv : int, float, splitter or iterable of splits
        Images that the fusion is fitted on. An int: out-of-fold predictions of that many folds, both tiers refitted for
        each; likewise a scikit-learn splitter or its splits. A float in (0, 1): that share of the images, held out of
        the training of both tiers. Images of one group (`fit(X, y, groups=…)`) are held out together.
    class_weight : dict, "balanced" or None
        Weights of the labels in the fit of tier 1, tier 2 and the fusion, as in scikit-learn.
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
        "auto" (a GPU if there is one) or what torch calls the device: where a denoiser is trained and run, and where
        tiers that are named by a string are loaded.
    dtype : str or None
        What these compute in, "float64" (a trained denoiser only), "float32", "bfloat16" or "float16". None: float64
        for an MLP, float32 for a U-Net, and for tiers named by a string what their adapters choose.
    n_jobs : int or None
        Number of folds fitted at a time, as in scikit-learn. The result does not depend on it.
    reject : float or None
        Rate in (0, 1) of false alarms: images with a `novelty` of at most this are none of the classes. It takes a
        calibration, and one more trial of each image. None: every image is one of them.
    novel_label : str, number or None
        Their label in `predict` and over HTTP, of the same kind as the classes; `RerankResult.label` is None.
    verbose : bool
        Show progress bars.
    random_state : int, RandomState or None
        Decides everything: folds, training and the noise of all trials.

    Attributes
    ----------
    classes_ : array `[C]`
        The labels.
    proposer_, denoiser_ : objects
        The fitted tiers.
    fusion_ : Fusion
        Turns prior and evidence into the posterior.
    calibration_ : Calibration or None
        Fusion, timestep weights and order of trials, fitted on labelled images. None if nothing was calibrated:
        `predict_proba` then ranks but is no calibrated probability.
    worth_ : Worth or None
        Comparison of both tiers with tier 1 on held-out images; as text, a sentence that says what to do. If tier 2
        does not pay, `fit` turns it off, and the answer is tier 1's. None if nothing was calibrated.
    guarantee_ : Guarantee or None
        Bound on what stopping early costs, and how that was tested; from `calibrate` with `max_loss`. None once
        `set_params` changes `allocation` or `top_k`, and for `with_labels`.
    image_shape_ : tuple of int or None
        (H, W, C) or (d,) of one item; None where the tiers take images of any size.
    pixel_range_ : tuple of float or None
        Lowest and highest value in the X of `fit`, 0 and 255 if it was uint8; black and white of an image file become
        these. None if no array was fitted on.
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

    Any `fit` begins anew. `with_labels` asks a fitted classifier about other labels and keeps its calibration.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> clf = HybridClassifier(random_state=0).fit(digits.images, digits.target)  # doctest: +SKIP
    >>> clf.predict(digits.images[:3])  # doctest: +SKIP
    array([0, 1, 2])
    """

    calibration_: Calibration | None
    worth_: Worth | None
    guarantee_: Guarantee | None

    _usual: UsualValues | None

    def __init__(
        self,
        proposer: Any = None,
        denoiser: Any = None,
        *,
        top_k: int | None = None,
        prompts: Prompts | None = None,
        allocation: Allocation | None = None,
        objective: str = "l2",
        weighting: str = "learned",
        image_shape: tuple[int, ...] | None = None,
        architecture: str = "auto",
        cv: Any = 3,
        max_iter: int = 150,
        learning_rate: float = 2e-3,
        wrong_class_weight: float = 1.0,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        n_jobs: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        dtype: str | None = None,
        reject: float | None = None,
        novel_label: str | float | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.proposer = proposer
        self.denoiser = denoiser
        self.top_k = top_k
        self.prompts = prompts
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
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.reject = reject
        self.novel_label = novel_label
        self.verbose = verbose
        self.random_state = random_state

    # --- parameters ---------------------------------------------------------------------------------------------------

    __metadata_request__fit: ClassVar[dict[str, bool | None]] = {"sample_weight": None, "groups": True}

    def get_metadata_routing(self) -> MetadataRouter:
        """Routing of `fit`'s arguments beside X and y, for scikit-learn."""
        return router_of(self)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; if deep, with the proposer's and the allocation's, as in `proposer__C`."""
        params = super().get_params(deep=deep)
        if deep:
            if is_dataclass(self._race()):
                params |= {f"allocation__{k}": v for k, v in asdict(self._race()).items()}
            if self.proposer is None:
                params |= {f"proposer__{k}": v for k, v in default_proposer()[-1].get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, also nested ones such as `allocation__confidence` and `proposer__C`.

        Of a fitted classifier `allocation`, `top_k`, `batch_size`, `reject`, `novel_label` and `verbose` take effect at
        once, the others with the next `fit`.

        Raises
        ------
        InvalidInputError
            For a parameter that the allocation does not have.
        ValueError
            From scikit-learn, for any other name that there is not.
        """
        of_race = _pop_nested(params, "allocation")
        of_default = _pop_nested(params, "proposer") if params.get("proposer", self.proposer) is None else {}
        super().set_params(**params)
        if of_race:
            known = asdict(self._race())
            if unknown := sorted(of_race.keys() - known.keys()):
                raise InvalidInputError(f"{self._race()!r} has no {unknown[0]!r}; it has {', '.join(known)}")
            self.allocation = replace(self._race(), **of_race)
        if of_default:
            proposer = default_proposer()
            proposer[-1].set_params(**of_default)
            self.proposer = proposer
        if hasattr(self, "guarantee_") and (of_race or {"allocation", "top_k"} & params.keys()):
            self.guarantee_ = None  # it is one of other settings
        return self

    def _race(self) -> Any:
        """The allocation; `Race()` for None."""
        return Race() if self.allocation is None else self.allocation

    def __sklearn_clone__(self) -> Self:
        """An unfitted copy; a denoiser that was given is shared, as nothing changes it."""
        params = super().get_params(deep=False)
        denoiser = params.pop("denoiser")
        other = type(self)(denoiser=denoiser, **{name: clone(value, safe=False) for name, value in params.items()})
        if hasattr(self, "_metadata_request"):
            other._metadata_request = copy.deepcopy(self._metadata_request)
        return other

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = accepts_gaps(self.proposer)
        return tags

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit both tiers and the fusion; the table in the class's notes says what that means for which tiers.

        A fit that fails or is interrupted leaves the classifier as it was.

        Parameters
        ----------
        X : array `[n, d]`, `[n, H, W]`, `[n, H, W, C]`, data frame, list of n PIL images, or None
            Images or vectors, uint8 or real numbers in any fixed range; None for zero-shot use. PIL images mean 0 to
            255, and for predictions are scaled to the range of the arrays that the model was fitted on. A data frame
            may hold text, and gaps where the proposer takes them: tier 2 sees the median of the column there, and of
            text which value it is.
        y : array `[n]`
            Labels; with X=None the label names themselves. A name that repeats stands for as many classes, which models
            of text cannot tell apart; their labels have their position behind the name, such as "crane (#517)".
        **params
            `sample_weight` `[n]` for both tiers and the fusion; `groups` `[n]`, which are held out together; anything
            else goes to the proposer's `fit`. With scikit-learn's metadata routing, all goes where it is requested.

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
        with torch.inference_mode(False), torch.enable_grad():
            fitted = self._without_fit()._fit(X, y, params)
        self.__dict__ = fitted.__dict__  # at once, now that all has succeeded
        return self

    def _without_fit(self) -> Self:
        """A copy that shares the parameters and has nothing that `fit` left behind."""
        other, fitted = copy.copy(self), self._fitted()
        other.__dict__ = {name: value for name, value in vars(other).items() if name not in fitted}
        return other

    def _fitted(self) -> dict[str, Any]:
        """All that `fit` left behind, by attribute."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name in _FITTED}

    def _fit(self, X: Any, y: Any, params: dict[str, Any]) -> Self:
        check_parameters(self)
        if X is None:
            check_labels(y)  # before gigabytes are read
        proposer, denoiser = resolve_tiers(self)
        self._objective, self._weighting = self.objective, self.weighting
        if X is None:
            return self._fit_labels(proposer, denoiser, y)
        of_one_size = denoiser is None or isinstance(denoiser, LateConditionedDenoiser)
        self._takes_arrays = of_one_size or not getattr(proposer, "takes_images", False)
        items, y = self._read_labelled(X, y, reset=True)
        self._usual = UsualValues.fit(items.images) if np.ndim(items.images) == 2 else None
        metadata = metadata_of(self, params, y)
        if metadata.weight is not None and not metadata.weight.all():  # what weighs nothing is not there
            kept = np.flatnonzero(metadata.weight)
            items, y, metadata = items.select(kept), y[kept], metadata.select(kept, len(y))
            if len(np.unique(y)) < 2:
                raise InvalidInputError(
                    f"sample_weight is above 0 for the one class {y.tolist()[0]!r}; give weight to at least 2 classes"
                )
        self.classes_ = self._classes(proposer, y)
        numbers = class_numbers(y, self.classes_)
        check_classes(self.classes_, numbers, trains=denoiser is None)
        self._seed = draw_seed(self.random_state)
        sample = Sample(items, numbers, metadata.weight, metadata.groups)
        tiers, recording = self._cross_fit(proposer, denoiser, items.images, metadata.proposer).fit(sample, self.cv)
        self._keep(tiers)
        self._calibrate(recording)
        if recording is None:  # nothing says that tier 2 is better
            self.fusion_ = Fusion(pays=False)
        return self

    def calibrate(self, X: Any, y: Any, max_loss: float | None = None, delta: float = 0.05) -> Self:
        """Fit the fusion alone, on images that neither tier was trained on; with `max_loss`, also bound early stopping.

        A bound is for images of the same distribution, and holds for accuracy against that of all trials of all
        candidates (tier 1's first twenty at most). Two thirds of the images test it; `allocation` and `top_k` become
        the cheapest that pass, and `guarantee_` says what was found. `worth_` is then measured with these settings, on
        the other third; tier 2 stays on or off as it was for the bound.

        Parameters
        ----------
        X, y
            As for `fit`; a few dozen images do, but for a bound it takes hundreds.
        max_loss : float, optional
            Accuracy that stopping early may cost at most, in (0, 1): 0.005 is half a point. Default: no bound.
        delta : float
            Probability that it costs more, in (0, 1).

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            For numbers out of range, or too few images for the bound; the error says how many would do.
        """
        check_is_fitted(self)
        check_parameters(self)
        items, y = self._read_labelled(X, y)
        sample = Sample(items, class_numbers(y, self.classes_))
        tiers = FittedTiers(self.proposer_, self.denoiser_, None)
        cross = self._cross_fit(*tiers[:2], items.images)
        if max_loss is None:
            self._calibrate(cross.record(tiers, sample, progress=self.verbose))
            return self
        check_number("max_loss", max_loss, above=0, below=1)
        check_number("delta", delta, above=0, below=1)
        kept, out = hold_out(sample.y, 1 - FIT_SHARE, self._seed)
        check_enough(len(out), max_loss, delta)
        ordering = cross.record(tiers, sample.select(kept), progress=self.verbose)
        self._calibrate(ordering)
        if self.calibration_ is not None:
            testing = cross.record(tiers, sample.select(out), len(out), progress=self.verbose)
            weighting = resolve_weighting(self._weighting)
            order_on, test_on = (
                Replays.of(part, self.calibration_, self.classes_, weighting) for part in (ordering, testing)
            )
            guarantee = find_guarantee(order_on, test_on, max_loss, delta, self.verbose)
            self._adopt(guarantee, ordering)
        return self

    def _adopt(self, guarantee: Guarantee, recording: Recording) -> None:
        """Take a guarantee's settings, and measure with them what tier 2 is worth."""
        assert self.calibration_ is not None and self.worth_ is not None
        before, after = (self._race(), self.top_k), (guarantee.allocation, guarantee.top_k)
        self.set_params(allocation=guarantee.allocation, top_k=guarantee.top_k)
        self.guarantee_ = guarantee
        weighting = resolve_weighting(self._weighting)
        self.worth_ = worth_with(recording, self.worth_, self.classes_, before, after, weighting, self._seed)
        self.calibration_ = replace(self.calibration_, worth=self.worth_)

    def _cross_fit(
        self, proposer: Any, denoiser: Any, images: Any, proposer_params: Mapping[str, Any] | None = None
    ) -> CrossFit:
        fitter = TierFitter(
            proposer=proposer,
            denoiser=denoiser,
            architecture=self.architecture,
            training=TrainingConfig(
                max_iter=self.max_iter,
                learning_rate=self.learning_rate,
                wrong_class_weight=self.wrong_class_weight,
                n_iter_no_change=self.n_iter_no_change,
            ),
            validation_fraction=self.validation_fraction,
            device=as_device(self.device),
            dtype=None if self.dtype is None else getattr(torch, self.dtype),
            proposer_params=proposer_params or {},
        )
        return CrossFit(
            fitter,
            self.classes_,
            self._seed,
            self._objective,
            self.batch_size,
            n_jobs=self.n_jobs,
            progress=self.verbose,
            pixel_range=pixel_span(images) if self._takes_arrays else None,
        )

    def _fit_labels(self, proposer: Any, denoiser: Any, labels: Any) -> Self:
        """Zero-shot: both tiers as they are, for these labels."""
        if denoiser is None or not is_trained(proposer):
            raise InvalidInputError(
                "fit(None, labels) needs two tiers that are trained already: pass a denoiser, and a proposer that is "
                "named or wrapped in FrozenEstimator; to train them pass images and their labels, fit(X, y)"
            )
        proposer, self.classes_ = for_labels(proposer, denoiser, labels)
        self._takes_arrays = not getattr(proposer, "takes_images", False)
        self._seed = draw_seed(self.random_state)
        shape = self.image_shape
        self.image_shape_ = None if shape is None else (*shape, 1)[:3]
        self.pixel_range_ = self._table = self._usual = None
        self._keep(FittedTiers(proposer, denoiser, None))
        self._calibrate(None)
        return self

    def _classes(self, proposer: Any, y: np.ndarray) -> np.ndarray:
        """The labels in y, or all that a trained proposer knows: images for calibration need not show every class."""
        if not is_trained(proposer):
            return np.unique(y)
        if not hasattr(proposer, "classes_"):
            proposer.fit(None, np.unique(y))
        return np.asarray(proposer.classes_)

    def _keep(self, tiers: FittedTiers) -> None:
        self.proposer_, self.denoiser_ = tiers.proposer, tiers.denoiser
        if tiers.log is not None:
            self.n_iter_ = tiers.log.n_iter
            self.training_log_ = tiers.log

    def _calibrate(self, recording: Recording | None) -> None:
        self.calibration_, self.worth_, self.guarantee_, self.fusion_ = None, None, None, Fusion()
        if recording is None:
            return
        if not len(recording.y):
            warnings.warn(
                "no image has finite errors, its own class among them, so nothing is calibrated and the answer is tier "
                "1's; check what the denoiser predicts for these images",
                UncalibratedWarning,
                stacklevel=4,
            )
            self.fusion_ = Fusion(pays=False)
            return
        weighting = resolve_weighting(self._weighting)
        self.calibration_ = calibrate(recording, self.classes_, self._race(), self.top_k, weighting, self._seed)
        self.fusion_, self.worth_ = self.calibration_.fusion, self.calibration_.worth

    # --- predicting ---------------------------------------------------------------------------------------------------

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
        """Generate the steps of `rerank`, to be watched; none is rejected here, `novelty` tells."""
        check_is_fitted(self)
        items = self._read(X)
        candidates, log_prior, _ = self._propose(items)
        return self.reranker().stream(items.images, candidates, log_prior, self._novel(items))

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
        p_values, evaluations = self._p_values(items)  # first, as it may raise
        posterior, results = self._decide(items)
        return posterior, reject_novel(results, p_values, evaluations, self.reject)

    def _decide(self, items: Items) -> tuple[np.ndarray, list[RerankResult]]:
        candidates, log_prior, own = self._propose(items)
        stage = self.reranker()
        stage.check_prior = False  # it is that of the tier 1 which the fusion was fitted for
        results = stage.rerank(items.images, candidates, log_prior, novel=self._novel(items), progress=self.verbose)
        return self._posterior(own, results), results

    def _posterior(self, own: np.ndarray, results: Sequence[RerankResult]) -> np.ndarray:
        """Posterior `[n, C]` of all classes from their log prior `[n, C]` and the results of some candidates."""
        posterior = self.fusion_.prior(own)
        number = {label: i for i, label in enumerate(self.classes_.tolist())}
        for row, log_p, result in zip(posterior, own, results, strict=True):
            if result.stopped_by in TIER_1_ANSWERS:
                row[:] = softmax(log_p)
                continue
            columns = [number[label] for label in result.candidates]
            row[columns] = result.posterior * row[columns].sum()
        return posterior / posterior.sum(axis=1, keepdims=True)

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

    def _p_values(self, items: Items) -> tuple[np.ndarray, np.ndarray]:
        """P-values of images and what each cost in evaluations, `[n]` each."""
        test = novelty_test(self)
        traits, evaluations = self._traits(items, test.pixel_range)
        return test.p_values(traits), evaluations

    def _traits(self, items: Items, pixel_range: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Traits `[n, 6]` of images, and the evaluations `[n]` behind them."""
        log_prior = aligned_log_proba(self.proposer_, items, self.classes_)
        candidates = self.classes_[np.argsort(-log_prior, axis=1, kind="stable")[:, :RECORDED_CLASSES]].tolist()
        stage = self.reranker(FixedTrials(1), Fusion())
        stage.plan = self.reranker(Race(max_trials=1)).plan  # its most informative trial
        lowest, evaluations = lowest_errors(stage, items.images, candidates, self.verbose)
        return traits_of(looks_of(items.images, *pixel_range), lowest), evaluations

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of `predict_proba`, `[n, C]`; never below that of the smallest normal float."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(float).tiny))

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-posterior `[n, C]`; with two classes the log-odds `[n]` of the second."""
        scores = self.predict_log_proba(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The labels with the highest posterior, `[n]`; with `reject`, `novel_label` for images of no class."""
        posterior, results = self.decide(X)
        labels = self.classes_[posterior.argmax(axis=1)]
        return labels if self.reject is None else name_novel(labels, results, self.novel_label)

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

    def explain(self, image: Any, a: Label = None, b: Label = None, *, trials: int = 16) -> Explanation:
        """Explain why an image is taken for class a and not for class b.

        The trials are those that a race would run first; all of them are, so that the sum may differ a little from the
        posterior of a race that stopped earlier.

        Parameters
        ----------
        image : one image or vector
            As one item of `fit`'s X.
        a, b : labels, optional
            Two of the classes. Default: those with the highest posteriors.
        trials : int
            Trials to run, at least 1.

        Returns
        -------
        Explanation
            The tiers' contributions to the log-odds, what each trial said, and a map of the image.

        Raises
        ------
        InvalidInputError
            For an unusable image, a label that is no class, one label twice, an objective that has no error by pixel
            (vlb), or errors that are not finite.

        Examples
        --------
        >>> print(clf.explain(photo))  # doctest: +SKIP
        'cat' rather than 'dog', log-odds 1.92: for 'cat' speak -0.41 from tier 1 and +2.33 from tier 2 in 16 trials …
        """
        check_is_fitted(self)
        check_whole("trials", trials, 1)
        for label in (a, b):
            if label is not None and label not in self.classes_.tolist():
                raise InvalidInputError(
                    f"{label!r} is none of the classes; choose of {choices(self.classes_.tolist())}"
                )
        if a is not None and a == b:
            raise InvalidInputError(f"a and b are both {a!r}; give two different classes")
        one = image[None] if isinstance(image, np.ndarray) else [image]
        items = self._read(one)
        posterior, results = self._decide(items)
        ranked = self.classes_[np.argsort(-posterior[0], kind="stable")].tolist()
        others = (label for label in ranked if label not in (a, b))
        pair = tuple(next(others) if label is None else label for label in (a, b))
        log_prior = self._propose(items)[2][0]
        chosen = log_prior[[self.classes_.tolist().index(label) for label in pair]]
        stage = self.reranker(Race(max_trials=trials))
        size, asked = _size_of(items.images[0]), results[0].stopped_by not in TIER_1_ANSWERS
        return explain(stage, items.images, size, (pair[0], pair[1]), chosen, self._objective, asked)

    def with_labels(self, labels: Sequence[Label]) -> Self:
        """A copy of this fitted classifier for other labels, at the cost of encoding the new ones.

        It shares both tiers, settings and noise, and keeps what `calibrate` learned (fusion, timestep weights, order of
        trials), so that its posterior is as well calibrated as the new labels resemble those calibrated on.
        Guarantee and test of novelty were of the labels before, and are left out; `calibrate` makes new ones.
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
        other = copy.copy(self)
        other.proposer_, other.classes_ = for_labels(self.proposer_, self.denoiser_, labels)
        other.guarantee_ = None  # it was tested, and novelty fitted, with the labels before
        if self.calibration_ and self.calibration_.novelty:
            other.calibration_ = replace(self.calibration_, novelty=None)
        return other

    def _log_prior(self, items: Items) -> np.ndarray:
        """Tier 1's log-probabilities `[n, C]` of all classes, flatter for images that look unlike the calibration's."""
        log_prior = aligned_log_proba(self.proposer_, items, self.classes_)
        drift = self.calibration_ and self.calibration_.drift
        return drift(log_prior, items.images) if drift else log_prior

    def _propose(self, items: Items) -> tuple[list[list[Label]], list[np.ndarray], np.ndarray]:
        """Candidates of each image with their log prior, and the log prior `[n, C]` of all classes."""
        log_prior = self._log_prior(items)
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
        persistence.save(folder, self.get_params(deep=False), self._fitted())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        trusted: Sequence[str] = (),
        prompts: Prompts | None = None,
        device: str | None = None,
    ) -> Self:
        """Read a classifier that `save` wrote; its predictions are exactly the same.

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
        parameters, fitted = persistence.load(folder, trusted, prompts, device)
        with persistence.finding_damage(folder):
            clf = cls(**parameters)
        clf.__dict__.update(fitted)
        return clf

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


_FITTED = ("_seed", "_takes_arrays", "_table", "_usual", "_objective", "_weighting")
"""Attributes that `fit` sets beside those whose names end in "_"."""


def _pop_nested(params: dict[str, Any], name: str) -> dict[str, Any]:
    """Take the parameters out that belong to the named one, by their own names."""
    prefix = f"{name}__"
    return {key.removeprefix(prefix): params.pop(key) for key in list(params) if key.startswith(prefix)}


def _size_of(image: Any) -> tuple[int, int] | None:
    """Height and width of an image; None for a vector."""
    if hasattr(image, "height"):
        return image.height, image.width
    return None if np.ndim(image) == 1 else (image.shape[0], image.shape[1])
