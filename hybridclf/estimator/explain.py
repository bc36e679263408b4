"""Explanations of one image by `HybridClassifier`: why class a and not class b, and the image changed from a to b."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..counterfactual import Counterfactual, counterfactual, decoding
from ..data.arrays import Items
from ..errors import InvalidInputError, choices
from ..explanation import Explanation, explain
from ..ports import Label
from ..reranking.allocation import Race
from ..utils.bounds import check_number, check_whole
from .predict import Predicts

__all__ = ["Explains"]


class Explains(Predicts):
    """Explaining part of `HybridClassifier`: each method takes one image and two classes."""

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
        items, a, b = self._one(image, a, b)
        posterior, (result,) = self._decide(items)
        pair = self._likeliest(posterior[0], a, b)
        log_prior = self._log_prior(items)[0]
        chosen = log_prior[[self.classes_.tolist().index(label) for label in pair]]
        stage = self.reranker(Race(max_trials=trials))
        size = _size_of(items.images[0])
        return explain(stage, items.images, size, pair, chosen, self._objective, result)

    def counterfactual(
        self, image: Any, a: Label = None, b: Label = None, *, steps: int = 50, strength: float = 0.8
    ) -> Counterfactual:
        """Show an image of class a as tier 2 would have it if it were of class b.

        The image is inverted to noise under a by DDIM, and regenerated under b (Appendix D of arXiv 2303.16203). It is
        also inverted and regenerated under either class alone: these reconstructions, and not the change, compare
        how well each class fits.

        Parameters
        ----------
        image : one image or vector
            As one item of `fit`'s X.
        a, b : labels, optional
            Two of the classes. Default: those with the highest posteriors, which takes a race.
        steps : int
            DDIM steps from image to noise, and as many back, at least 1. More make reconstructions closer.
        strength : float
            How far the image is taken towards noise, above 0 and below 1. Low values keep its layout.

        Returns
        -------
        Counterfactual
            The reconstructions and the changed image.

        Raises
        ------
        InvalidTypeError
            If tier 2 has no `decode`, as a denoiser of one's own may.
        InvalidInputError
            For an unusable image, a label that is no class, one label twice, steps or strength out of range, or
            predictions that are not finite.

        Examples
        --------
        >>> clf = HybridClassifier.from_pretrained("digits")  # doctest: +SKIP
        >>> clf.counterfactual(image, 3, 8).changed.shape  # doctest: +SKIP
        (8, 8)
        """
        check_is_fitted(self)
        check_whole("steps", steps, 1)
        check_number("strength", strength, above=0, below=1)
        decoding(self.denoiser_)  # before a race, which may take minutes
        items, a, b = self._one(image, a, b)
        pair = (a, b) if a is not None and b is not None else self._likeliest(self._decide(items)[0][0], a, b)
        pixel_range = (self.pixel_range_ or (0.0, 255.0)) if _has_bytes(image) else None
        return counterfactual(self.reranker(), items.images, pair, steps, strength, pixel_range, self.verbose)

    def _one(self, image: Any, a: Label, b: Label) -> tuple[Items, Label, Label]:
        """One image as items, and the classes to compare as `classes_` has them; None stays None."""
        known = self.classes_.tolist()
        for label in (a, b):
            if label is not None and (np.ndim(label) or label not in known):
                raise InvalidInputError(f"{label!r} is none of the classes; choose of {choices(known)}")
        if a is not None and a == b:
            raise InvalidInputError(f"a and b are both {a!r}; give two different classes")
        a, b = (None if label is None else known[known.index(label)] for label in (a, b))
        return self._read(image[None] if isinstance(image, np.ndarray) else [image]), a, b

    def _likeliest(self, posterior: np.ndarray, a: Label, b: Label) -> tuple[Label, Label]:
        """The two classes, in place of None the likeliest of the others by the posterior `[C]`."""
        ranked = self.classes_[np.argsort(-posterior, kind="stable")].tolist()
        others = (label for label in ranked if label not in (a, b))
        first, second = (next(others) if label is None else label for label in (a, b))
        return first, second


def _has_bytes(image: Any) -> bool:
    """Tell whether an image has 8 bits: a file, a PIL image, or an array of uint8 or bool."""
    return not hasattr(image, "dtype") or image.dtype in (np.uint8, bool)


def _size_of(image: Any) -> tuple[int, int] | None:
    """Height and width of an image; None for a vector."""
    if hasattr(image, "height"):
        return image.height, image.width
    return None if np.ndim(image) == 1 else (image.shape[0], image.shape[1])
