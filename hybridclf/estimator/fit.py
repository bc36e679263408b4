"""Fitting of `HybridClassifier`: both tiers and the fusion by `fit`, the fusion alone by `calibrate`."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import _safe_indexing, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from ..data.arrays import Items
from ..data.datasets import without_gaps
from ..denoising.weighting import resolve_weighting
from ..devices import as_device
from ..errors import InvalidInputError, UncalibratedWarning
from ..fitting.calibration import Calibration, calibrate, worth_with
from ..fitting.cross_fit import CrossFit, pixel_span
from ..fitting.guarantee import Guarantee, Replays, check_enough, find_guarantee, fit_and_test
from ..fitting.recording import Recording
from ..fitting.resolve_tiers import for_labels, resolve_tiers
from ..fitting.routing import Metadata, check_taken, metadata_of, weights_of
from ..fitting.splitting import groups_with_copies, splits_among
from ..fitting.tier_fitter import FittedTiers, Sample, TierFitter
from ..fitting.validation import check_classes, check_labels, check_parameters, class_numbers, warn_of_scale
from ..fitting.worth import Worth
from ..metrics import group_numbers
from ..models import LateConditionedDenoiser
from ..proposer import check_answers, is_trained
from ..reranking.fusion import Fusion
from ..reranking.novelty import UsualValues
from ..training.denoiser import TrainingConfig
from ..utils.bounds import check_number, draw_seed
from .reading import ReadsItems

__all__ = ["FitsTiers"]


class FitsTiers(ReadsItems):
    """Fitting part of `HybridClassifier`: it sets the fitted attributes, beside those of `ReadsItems`."""

    calibration_: Calibration | None
    worth_: Worth | None

    _usual: UsualValues | None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None, **params: Any) -> Self:
        """Fit both tiers and the fusion; see the table in the class's notes.

        A fit that fails or is interrupted leaves the classifier as it was.

        Parameters
        ----------
        X : array `[n, d]`, `[n, H, W]`, `[n, H, W, C]`, data frame, list of n PIL images or paths, or None
            Images, their files, or vectors, uint8 or real numbers in any fixed range; None for zero-shot use. PIL
            images mean 0 to 255, and for predictions are scaled to the range of the arrays that the model was fitted
            on. A data frame may hold text, and gaps where the proposer takes them: tier 2 sees the median of the column
            there, and of text which value it is.
        y : array `[n]`
            Labels; with X=None the label names themselves. A name that repeats stands for as many classes, which models
            of text cannot tell apart; their labels have their position behind the name, such as "crane (#517)".
        sample_weight : array `[n]`, optional
            Weights, not negative, for both tiers and the fusion; an image of weight 0 is as if not given.
        groups : array `[n]`, optional
            Groups of images that are held out together, such as the frames of a film. Where `cv` is a number, equal
            images, unlike equal vectors, are of one group in any case.
        **params
            Further arguments of the proposer's `fit`. With scikit-learn's metadata routing, all goes where it is
            requested.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            For parameters out of range, unusable images or labels, or X=None where a part would have to be trained.
        InvalidTypeError
            For further arguments where the proposer is not fitted.
        UnknownSpecError
            For a string that no adapter answers to.
        """
        with torch.inference_mode(False), torch.enable_grad():
            own = {"sample_weight": sample_weight, "groups": groups}
            fitted = self._without_fit()._fit(X, y, own | params)
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
            check_taken(proposer, Metadata(None, None, {k: v for k, v in params.items() if v is not None}))
            return self._fit_labels(proposer, denoiser, y)
        of_one_size = denoiser is None or isinstance(denoiser, LateConditionedDenoiser)
        self._takes_arrays = of_one_size or not getattr(proposer, "takes_images", False)
        self.proposer_ = proposer  # it decides how a table is read
        items, y = self._read_labelled(X, y, reset=True)
        metadata, cv = metadata_of(self, params, y), self.cv
        check_taken(proposer, metadata)
        if metadata.weight is not None and not metadata.weight.all():
            items, y, metadata, cv = self._weighing(X, y, metadata)
        is_table = isinstance(items.images, np.ndarray) and items.images.ndim == 2
        units = group_numbers(metadata.groups, len(y))
        self._usual = UsualValues.fit(items.images, units) if is_table else None
        self.classes_ = self._classes(proposer, denoiser, y)
        numbers = class_numbers(y, self.classes_)
        check_classes(self.classes_, numbers, trains=denoiser is None)
        if is_trained(proposer):
            check_answers(proposer, items, self.classes_)  # before a denoiser is trained for it
        self._seed = draw_seed(self.random_state)
        if isinstance(denoiser, LateConditionedDenoiser) and self.image_shape_ is not None:
            denoiser = denoiser.taking(self.image_shape_)
            warn_of_scale(denoiser, items.images)
        groups = metadata.groups
        if isinstance(cv, int | float | np.number):  # a splitter gets the groups that were given
            groups = groups_with_copies(items.images, groups, len(y))
        sample = Sample(items, numbers, metadata.weight, groups)
        tiers, recording = self._cross_fit(proposer, denoiser, items.images, metadata.proposer).fit(sample, cv)
        self._keep(tiers)
        self._calibrate(recording)
        if recording is None:  # nothing says that tier 2 is better
            self.fusion_ = Fusion(pays=False)
        return self

    def _weighing(self, X: Any, y: np.ndarray, metadata: Metadata) -> tuple[Items, np.ndarray, Metadata, Any]:
        """Items with a weight above 0, their labels, metadata and splits: nothing is learned from the others."""
        assert metadata.weight is not None
        kept = np.flatnonzero(metadata.weight)
        if len(np.unique(y[kept])) < 2:
            raise InvalidInputError(
                f"sample_weight is above 0 for the one class {y[kept].tolist()[0]!r}; give weight to at least 2 classes"
            )
        items, own = self._read_labelled(_safe_indexing(X, kept), y[kept], reset=True)
        return items, own, metadata.select(kept, len(y)), splits_among(kept, self.cv, y, metadata.groups)

    def calibrate(self, X: Any, y: Any, max_loss: float | None = None, delta: float = 0.05, groups: Any = None) -> Self:
        """Fit the fusion alone, on images that neither tier was trained on; with `max_loss`, also bound early stopping.

        A bound is for images of the same distribution, and holds for accuracy against that of all trials of all
        candidates (tier 1's first twenty at most). Two thirds of the images test it; `allocation` and `top_k` become
        the cheapest that pass, and `guarantee_` says what was found. `worth_` is then measured with these settings, on
        the other third; tier 2 stays on or off as it was for the bound. Where it is asked about none of the images that
        test the bound, there is nothing to bound: the settings stay, and `guarantee_` is None.

        `class_weight` counts as in `fit`. A call that fails or is interrupted leaves the classifier as it was.

        Parameters
        ----------
        X, y
            As for `fit`; a few dozen images do, but for a bound it takes hundreds.
        max_loss : float, optional
            Accuracy that stopping early may cost at most, in (0, 1): 0.005 is half a point. Default: no bound.
        delta : float
            Probability that it costs more, in (0, 1).
        groups : array `[n]`, optional
            Groups of images that belong together, such as the frames of a film: they are on one side of every split,
            and one of each tests the bound. Equal images, unlike equal vectors, are of one group in any case. Default:
            all others are alone.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            For numbers out of range, too few images for the bound (the error says how many would do), or a tier that
            was set after `fit`.
        """
        self._check_tiers()
        check_parameters(self)
        items, y = self._read_labelled(X, y)
        if groups is not None:
            check_consistent_length(y, groups)
            groups = without_gaps(groups)
        groups = groups_with_copies(items.images, groups, len(y))
        weight = weights_of(None, self.class_weight, y)
        sample = Sample(items, class_numbers(y, self.classes_), weight, groups)
        if weight is not None:  # nothing is learned from images without a weight
            sample = sample.select(np.flatnonzero(weight))
        if max_loss is not None:
            check_number("max_loss", max_loss, above=0, below=1)
            check_number("delta", delta, above=0, below=1)
        calibrated = copy.copy(self)
        calibrated._calibrate_on(sample, max_loss, delta)
        self.__dict__ = calibrated.__dict__  # at once, now that all has succeeded
        return self

    def _calibrate_on(self, sample: Sample, max_loss: float | None, delta: float) -> None:
        tiers = FittedTiers(self.proposer_, self.denoiser_, None)
        cross = self._cross_fit(*tiers[:2], sample.items.images)
        if max_loss is None:
            self._calibrate(cross.record(tiers, sample, progress=self.verbose))
            return
        kept, out = fit_and_test(len(sample.y), self._seed, sample.groups)
        check_enough(len(out), max_loss, delta)
        ordering = cross.record(tiers, sample.select(kept), progress=self.verbose)
        self._calibrate(ordering)
        if self.calibration_ is not None and self.fusion_.pays:  # else there is nothing to stop early
            testing = cross.record(tiers, sample.select(out), len(out), self.verbose, corrupted=False)
            weighting = resolve_weighting(self._weighting)
            order_on, test_on = (
                Replays.of(part, self.calibration_, self.classes_, weighting) for part in (ordering, testing)
            )
            guarantee = find_guarantee(order_on, test_on, max_loss, delta, self.verbose)
            if guarantee.exhaustive_evaluations:
                self._adopt(guarantee, ordering)

    def _adopt(self, guarantee: Guarantee, recording: Recording) -> None:
        """Take a guarantee's settings, and measure with them what tier 2 is worth."""
        assert self.calibration_ is not None and self.worth_ is not None
        before, after = (self._race(), self.top_k), (guarantee.allocation, guarantee.top_k)
        self.set_params(allocation=guarantee.allocation, top_k=guarantee.top_k)
        self.guarantee_ = guarantee
        weighting = resolve_weighting(self._weighting)
        self.worth_ = worth_with(recording, self.worth_, self.classes_, before, after, weighting, self._seed)
        self.calibration_ = replace(self.calibration_, worth=self.worth_)

    def _check_tiers(self) -> None:
        """Check that both tiers are fitted, and those that the parameters name."""
        check_is_fitted(self)
        if self._tiers_set:
            raise InvalidInputError(
                f"{' and '.join(sorted(self._tiers_set))} was set after `fit`, but the tiers are still those of then; "
                "call fit(X, y), or make a HybridClassifier(proposer, denoiser) of the new ones"
            )

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
        if isinstance(denoiser, LateConditionedDenoiser) and self.image_shape_ is not None:
            denoiser = denoiser.taking(self.image_shape_)
        self.pixel_range_ = self._table = self._usual = None
        self._keep(FittedTiers(proposer, denoiser, None))
        self._calibrate(None)
        return self

    def _classes(self, proposer: Any, denoiser: Any, y: np.ndarray) -> np.ndarray:
        """The labels in y, or all labels of trained tiers: images for calibration need not show every class."""
        if not is_trained(proposer):
            return np.unique(y)
        if not hasattr(proposer, "classes_"):  # it is asked by name, about any labels
            known = getattr(denoiser, "classes", y)
            proposer.fit(None, np.unique(known if np.isin(y, known).all() else y))
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


_FITTED = ("_tiers_set", "_seed", "_takes_arrays", "_table", "_usual", "_objective", "_weighting")
"""Attributes that `fit` sets beside those whose names end in "_"."""
