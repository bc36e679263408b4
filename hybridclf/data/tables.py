"""Encoding of tables with gaps or text as numbers, for tier 2."""

from typing import Any, Self

import numpy as np

__all__ = ["TableEncoder", "is_numeric"]

MAX_VALUES = 50
"""Most values of a text column that are encoded; rarer ones are encoded as a gap."""


class TableEncoder:
    """Encoder of a table's columns as numbers: median imputation and one-hot encoding.

    A column of numbers keeps them, and its gaps get its median. Any other column becomes one number per value, 1 where
    the row has that value and 0 elsewhere. A gap or a value unseen in `fit` is 0 throughout.

    Parameters
    ----------
    columns : list of float or list, optional
        State learned by `fit`: each column's median, or its values.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": [1.0, None, 3.0], "kind": ["cat", "dog", "cat"]})
    >>> TableEncoder().fit(table).transform(table)
    array([[1., 1., 0.],
           [2., 0., 1.],
           [3., 1., 0.]])
    """

    def __init__(self, columns: list[Any] | None = None) -> None:
        self.columns = columns or []

    def fit(self, table: Any) -> Self:
        """Learn medians and values from a table `[n, d]`, a data frame or an array."""
        self.columns = [_learn(column) for column in _columns(table)]
        return self

    def transform(self, table: Any) -> np.ndarray:
        """Encode a table `[n, d]` as numbers, float `[n, d']`."""
        return np.column_stack(
            [_encode(column, known) for column, known in zip(_columns(table), self.columns, strict=True)]
        )


def is_numeric(table: Any) -> bool:
    """Tell whether every column of a data frame holds numbers; an array counts as numeric."""
    # scikit-learn's own checks raise its usual error for an array of text
    return not hasattr(table, "columns") or all(_as_numbers(column) is not None for column in _columns(table))


def _columns(table: Any) -> list[np.ndarray]:
    """Split a table into its columns, arrays `[n]`."""
    if hasattr(table, "columns"):  # a data frame
        return [np.asarray(table[name]) for name in table.columns]
    return list(np.asarray(table).T)


def _gaps(column: np.ndarray) -> np.ndarray:
    """Mask of the gaps in a column `[n]`: None, nan, and pandas' NaT and NA."""
    return np.array([_is_gap(value) for value in column], dtype=bool)


def _is_gap(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # nan and NaT differ from themselves
    except TypeError:  # NA compared with itself is NA, which is neither true nor false
        return True


def _as_numbers(column: np.ndarray) -> np.ndarray | None:
    """Convert a column to float, gaps to nan; None if it holds anything else."""
    if column.dtype.kind in "biuf":
        return column.astype(float)
    known = ~_gaps(column)
    if column.dtype.kind != "O" or not all(isinstance(v, int | float | np.number | np.bool) for v in column[known]):
        return None
    numbers = np.full(len(column), np.nan)
    numbers[known] = column[known].astype(float)
    return numbers


def _learn(column: np.ndarray) -> Any:
    """Median of a column of numbers, or the `MAX_VALUES` most frequent values of another, sorted."""
    numbers = _as_numbers(column)
    if numbers is None:
        values, counts = np.unique(_as_text(column[~_gaps(column)]), return_counts=True)
        return sorted(values[np.argsort(-counts, kind="stable")][:MAX_VALUES].tolist())
    known = numbers[np.isfinite(numbers)]
    return float(np.median(known)) if len(known) else 0.0


def _encode(column: np.ndarray, known: Any) -> np.ndarray:
    """Encode a column by its median, float `[n]`, or by its values, float `[n, len(known)]`."""
    if isinstance(known, list):
        # ["a", "c", "b"] against known ["a", "b"] gives [[1, 0], [0, 0], [0, 1]]
        equal = _as_text(column)[:, None] == np.array(known, dtype=str)
        return (equal & ~_gaps(column)[:, None]).astype(float)
    numbers = _as_numbers(column)
    if numbers is None:
        numbers = np.full(len(column), np.nan)  # text in a column that held numbers in `fit`: as unknown as a gap
    return np.where(np.isnan(numbers), known, numbers)


def _as_text(column: np.ndarray) -> np.ndarray:
    """Texts of a column's values, str `[n]`: 1.0 is "1", as numbers come as floats where no text is among them."""
    floats = (float, np.floating)
    return np.array([str(int(v) if isinstance(v, floats) and v.is_integer() else v) for v in column], dtype=str)
