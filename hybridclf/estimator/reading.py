"""Reading of a user's images, vectors and tables into what both tiers take."""

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ..data.arrays import Items, as_array, in_range, is_empty, is_image_list, is_pil_list, scaled, value_range
from ..data.image_files import read_pictures
from ..data.tables import TableEncoder, is_numeric
from ..errors import InvalidInputError
from ..proposer import accepts_gaps
from .parameters import HasParameters

__all__ = ["ReadsItems"]

GAP = 3
"""Factor by which an image of any size stays larger than the tiers resize it to: then that gives the same pixels.

Pillow's `resize` says so of its own `reducing_gap`, which averages in the same way.
"""


class ReadsItems(HasParameters):
    """Reading part of `HybridClassifier`: `fit` learns shape, range and columns, and later inputs are held to them."""

    image_shape_: tuple[int, ...] | None
    pixel_range_: tuple[float, float] | None
    n_features_in_: int

    proposer_: Any
    denoiser_: Any

    _takes_arrays: bool
    _table: TableEncoder | None

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
        elif (images.ndim == 4 or not table) and self.pixel_range_ and not reset:  # in a table 255 is a number
            images = in_range(images, self.pixel_range_)
        return Items(given if table and images.ndim == 2 and hasattr(given, "shape") else images, images)

    @property
    def _least_side(self) -> int | None:
        """Shorter edge that images may be averaged down to on arrival: `GAP` times what the larger tier resizes to.

        None for a model of a fixed size, or whose tiers do not say theirs.
        """
        sides = [getattr(self.proposer_, "feature_side", None), getattr(self.denoiser_, "resolution", None)]
        known = [side for side in sides if isinstance(side, int)]
        return GAP * max(known) if self.image_shape_ is None and len(known) == len(sides) else None

    def _needs_encoder(self, X: Any) -> bool:
        """Tell whether a table may have gaps, or has columns that are no numbers."""
        return self.proposer is not None and (accepts_gaps(self.proposer_) or not is_numeric(X))

    def _read_mixed(self, X: Any, reset: bool) -> Items:
        """A table with gaps or text: as it is for tier 1, as numbers for tier 2."""
        if hasattr(X, "columns"):  # a data frame, whose columns may be of types that make no array
            validate_data(self, X, skip_check_array=True, reset=reset)
            given = X
        else:
            given = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
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
