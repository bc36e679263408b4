"""HybridClassifier: two tiers as one scikit-learn classifier."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import MetadataRouter
from sklearn.utils.validation import check_is_fitted

from .bounds import draw_seed
from .denoising.weighting import resolve_weighting
from .devices import as_device
from .errors import InvalidInputError, UncalibratedWarning
from .fitting.calibration import Recording, calibrate
from .fitting.cross_fit import CrossFit, Parts, Recipe, Sample
from .fitting.routing import metadata_of, router_of
from .fitting.tiers import for_labels, resolve_tiers
from .fitting.validation import check_classes, check_labels, check_parameters, class_numbers
from .models import LateConditionedDenoiser
from .names import Prompts
from .predicting import TwoTierPredictor
from .proposer import accepts_gaps, default_proposer, is_trained
from .reranking.allocation import Allocation, Race
from .reranking.fusion import Fusion
from .reranking.novelty import UsualValues
from .training.denoiser import TrainingConfig

__all__ = ["HybridClassifier"]


class HybridClassifier(TwoTierPredictor):
    """A fast classifier proposes, a diffusion classifier settles what it leaves open.

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
        Which candidates get the next trial, and when to stop. None: `Race()`, or `PairedTTest()` while nothing is
        calibrated.
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
        What the fusion is fitted on. An int: out-of-fold predictions of that many folds, both tiers refitted for each;
        so too for a scikit-learn splitter or its splits. A float in (0, 1): that share of the images, held out of the
        training of both tiers for good. Images of one group (`fit(X, y, groups=…)`) are held out together.
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
    batch_size : int, "auto" or None
        Denoiser batch in re-ranking; None: chosen by its type and device; "auto": by a short timing.
    device : str
        "auto" (a GPU if there is one) or what torch calls the device: where a denoiser is trained and run, and where
        tiers that are named by a string are loaded.
    dtype : str or None
        What these compute in, "float64" (a trained denoiser only), "float32", "bfloat16" or "float16". None: float64
        for an MLP, float32 for a U-Net, and for tiers named by a string what their adapters choose.
    n_jobs : int or None
        Folds that are fitted at a time, as in scikit-learn. The result does not depend on it.
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
    worth_ : Worth or None
        What tier 2 adds to tier 1 on held-out images; as text, a sentence that says what to do. Where it does not pay,
        `fit` turns it off, and the answer is tier 1's. None if nothing was calibrated.
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

    Any `fit` begins anew. `with_labels` asks a fitted classifier about other labels and keeps its calibration.

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
        batch_size: int | Literal["auto"] | None = None,
        device: str = "auto",
        dtype: str | None = None,
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
        self.verbose = verbose
        self.random_state = random_state

    # --- parameters ---------------------------------------------------------------------------------------------------

    __metadata_request__fit: ClassVar[dict[str, bool | None]] = {"sample_weight": None, "groups": True}

    def get_metadata_routing(self) -> MetadataRouter:
        """Where `fit` sends what it is given beside X and y, for scikit-learn's metadata routing."""
        return router_of(self)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; if deep, those of proposer and allocation too, as in `proposer__C`."""
        params = super().get_params(deep=deep)
        if deep:
            if is_dataclass(self._race()):
                params |= {f"allocation__{k}": v for k, v in asdict(self._race()).items()}
            if self.proposer is None:
                params |= {f"proposer__{k}": v for k, v in default_proposer()[-1].get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, also nested ones such as `allocation__confidence` and `proposer__C`.

        Of a fitted classifier `allocation`, `top_k`, `batch_size` and `verbose` take effect at once, the others with
        the next `fit`.

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
        return self

    def _race(self) -> Any:
        """The allocation, or the one that stands for None."""
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
        """Fit both tiers and the fusion; the table in the class's notes says what that means for which parts.

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
        other = copy.copy(self)
        fitted = {name for name in vars(other) if name.endswith("_") or name in _FITTED}
        other.__dict__ = {name: value for name, value in vars(other).items() if name not in fitted}
        return other

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
        self.classes_ = self._classes(proposer, y)
        numbers = class_numbers(y, self.classes_)
        check_classes(self.classes_, numbers, trains=denoiser is None)
        metadata = metadata_of(self, params, y)
        self._seed = draw_seed(self.random_state)
        sample = Sample(items, numbers, metadata.weight, metadata.groups)
        parts, recording = self._cross_fit(proposer, denoiser, metadata.proposer).fit(sample, self.cv)
        self._keep(parts)
        self._calibrate(recording)
        if recording is None:  # nothing says that tier 2 is better
            self.fusion_ = Fusion(pays=False)
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
        items, y = self._read_labelled(X, y)
        sample, parts = Sample(items, class_numbers(y, self.classes_)), Parts(self.proposer_, self.denoiser_, None)
        self._calibrate(self._cross_fit(*parts[:2]).record(parts, sample, progress=self.verbose))
        return self

    def _cross_fit(self, proposer: Any, denoiser: Any, proposer_params: Mapping[str, Any] | None = None) -> CrossFit:
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
            device=as_device(self.device),
            dtype=dtype,
            proposer_params=proposer_params or {},
        )
        return CrossFit(
            recipe,
            self.classes_,
            self._seed,
            self._objective,
            self.batch_size,
            n_jobs=self.n_jobs,
            progress=self.verbose,
        )

    def _fit_labels(self, proposer: Any, denoiser: Any, labels: Any) -> Self:
        """Zero-shot: both parts as they are, for these labels."""
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
        if parts.log is not None:
            self.n_iter_ = parts.log.n_iter
            self.training_log_ = parts.log

    def _calibrate(self, recording: Recording | None) -> None:
        self.calibration_, self.worth_, self.fusion_ = None, None, Fusion()
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


_FITTED = ("_seed", "_takes_arrays", "_table", "_usual", "_objective", "_weighting")
"""What `fit` leaves behind, beside the attributes whose names end in "_"."""


def _pop_nested(params: dict[str, Any], name: str) -> dict[str, Any]:
    """Take those of the parameters out that belong to the named one, by their own names."""
    prefix = f"{name}__"
    return {key.removeprefix(prefix): params.pop(key) for key in list(params) if key.startswith(prefix)}
