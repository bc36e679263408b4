"""HybridClassifier: two tiers as one scikit-learn classifier."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from sklearn.utils.validation import check_is_fitted

from .. import persistence
from ..fitting.resolve_tiers import for_labels
from ..ports import Label, TextModel
from ..pretrained import catalog
from ..utils.names import Prompts
from .explain import Explains

__all__ = ["HybridClassifier"]


class HybridClassifier(Explains):
    """Image classifier of two tiers: a fast classifier proposes, a diffusion classifier re-ranks.

    Parameters
    ----------
    proposer : classifier, function, str or None
        Tier 1. Any scikit-learn classifier (with `predict_proba` or only `decision_function`), a string such as
        "sklearn:SVC" for an installed adapter, or None for logistic regression. What has `fit` and `get_params` is
        cloned and fitted on X as the user gave it, column names, types and gaps included; what is wrapped in
        `sklearn.frozen.FrozenEstimator` or is no estimator is used as it is. That may be a function from n images to
        log-probabilities `[n, C]`. Its columns are the labels of `fit(None, labels)`, or those that the denoiser knows,
        or else those in y, sorted.
    denoiser : Denoiser, str or None
        Tier 2. An object with the methods of `hybridclf.Denoiser`, a string for an adapter, or None to train a
        late-conditioned one in `fit`. Clones of the classifier share the object.
    top_k : int or None
        Candidates that tier 1 hands over, at least 1; None: as many as it takes to leave 0.1 % of the prior outside,
        once calibrated 20 at most.
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
        (H, W) or (H, W, C) if X holds flattened images, and the size to which PIL images and files are stretched. A
        denoiser of this package takes any multiple of its own size, and averages down.
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
        Peak learning rate of the denoiser's training.
    wrong_class_weight : float
        Weight of the term in the denoiser's loss that raises errors under wrong classes (Appendix D of arXiv
        2303.16203); 0 trains denoising alone.
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
        Type that the tiers compute in: "float64" (a trained denoiser only), "float32", "bfloat16" or "float16". None:
        float64 for an MLP, float32 for a U-Net, and for tiers named by a string what their adapters choose. New
        networks of `train_pair` then multiply in bfloat16 on a processor that does so natively (AMX, AVX512-BF16).
    n_jobs : int or None
        Number of folds fitted at a time, as in scikit-learn. The result does not depend on it.
    reject : float or None
        Rate in (0, 1) of false alarms: images with a `novelty` of at most this are none of the classes. It takes a
        calibration, and one more trial of each image. None: every image is one of them.
    novel_label : str, number or None
        Label of rejected images in `predict` and over HTTP, of the same kind as the classes; `RerankResult.label` is
        None.
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
        does not pay, `fit` turns it off, and the answer is tier 1's; if it pays on images that look unusual, it stays
        on for these (`worth_.unusual`). None if nothing was calibrated.
    guarantee_ : Guarantee or None
        Bound on what stopping early costs, and how that was tested; from `calibrate` with `max_loss`. None where
        tier 2 was asked about none of the images of the test, once `set_params` changes `allocation` or `top_k`, and
        for `with_labels`.
    image_shape_ : tuple of int or None
        (H, W, C) or (d,) of one item; None where the tiers take images of any size.
    pixel_range_ : tuple of float or None
        Lowest and highest value in the X of `fit`, 0 and 255 if it was uint8; black and white of an image file become
        these. None if no array was fitted on.
    n_features_in_ : int
        Numbers in one item.
    n_iter_ : int
        Passes behind the trained denoiser; absent if it was given.
    training_log_ : TrainingLog
        Losses of its training by pass; absent if it was given, and not saved.

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
    frozen, named   given     trains nothing; fusion from X, 2,000   uses both as they are,
                              at most (X must be new to both)        uncalibrated
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

    @property
    def reads_text(self) -> bool:
        """True if both tiers read any text, so that `with_labels` takes any names."""
        return isinstance(self.proposer_, TextModel) and isinstance(self.denoiser_, TextModel)

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

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier into a folder, as JSON, safetensors and skops.

        A tier that is named by a spec string is saved as that string, relative to the folder if its path lies in there:
        such a folder can be moved as a whole. A tier that lies in another saved model, from which the classifier was
        loaded, is copied. Metadata requests (`set_fit_request`) are not saved: set them again before another fit.

        Parameters
        ----------
        folder : path
            A new or empty folder, one that holds such tiers and nothing else, or a saved model to be replaced.

        Raises
        ------
        SavedModelError
            If the folder holds something else, or a part cannot be saved: a function, an allocation of your own, or a
            tier that is neither named by a spec string, nor scikit-learn's, nor trained by `fit` or `train_pair`.
        InvalidInputError
            If a tier was set after `fit`.
        """
        self._check_tiers()
        persistence.save(folder, self.get_params(deep=False), self._fitted())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        trusted: Sequence[str] = (),
        prompts: Prompts | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Read a classifier that `save` wrote; its predictions are exactly the same, unless another `dtype` is given.

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
        dtype : str, optional
            Type that the tiers compute in, as for the class. Default: what it was saved with. The weights are rounded
            to it, and `save` writes the rounded ones.

        Raises
        ------
        SavedModelError
            If the folder is no saved model, is damaged, of a newer version, or needs types to be trusted.
        InvalidInputError
            For prompts that neither tier reads, a device that is not here, or a dtype that the tiers do not compute in.
        """
        parameters, fitted = persistence.load(folder, trusted, prompts, device, dtype)
        with persistence.finding_damage(folder):
            clf = cls(**parameters)
        clf.__dict__.update(fitted)
        return clf

    @classmethod
    def from_pretrained(
        cls, name: str | Path, prompts: Prompts | None = None, device: str | None = None, dtype: str | None = None
    ) -> Self:
        """An embedded model by name, such as "digits", or else a saved one by its folder; nothing is downloaded.

        Parameters
        ----------
        name : str or path
            `hybridclf models` lists the names.
        prompts, device, dtype
            As for `load`.

        Raises
        ------
        InvalidInputError
            If there is neither a model of that name nor such a folder, or as for `load`.
        SavedModelError
            As for `load`.
        """
        return cls.load(catalog.model_folder(name), prompts=prompts, device=device, dtype=dtype)
