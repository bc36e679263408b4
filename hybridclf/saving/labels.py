"""Labels as JSON holds them, and back: the same dtype and the same values."""

from typing import Any

import numpy as np

from ..errors import SavedModelError

__all__ = ["describe_labels", "restore_labels"]

_PLAIN = (str, bool, int, float, type(None))


def describe_labels(labels: np.ndarray) -> dict[str, Any]:
    """Labels `[C]` as plain values.

    Raises
    ------
    SavedModelError
        For labels that JSON cannot hold without loss, such as dates in an array of objects.
    """
    values = labels.tolist()
    if labels.dtype.kind in "mM":  # points in time and spans of it, as their integers
        values = labels.view(labels.dtype.byteorder + "i8").tolist()
    elif labels.dtype.kind == "S":
        values = [value.decode("latin-1") for value in values]
    elif labels.dtype.kind == "O":
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
    strange = [value for value in values if type(value) not in _PLAIN]
    if strange or labels.dtype.kind not in "biufUSmMO":
        what = type(strange[0]).__name__ if strange else str(labels.dtype)
        raise SavedModelError(f"labels of type {what} cannot be saved; fit on strings, numbers or numpy's datetime64")
    return {"dtype": labels.dtype.str, "values": values}


def restore_labels(saved: dict[str, Any]) -> np.ndarray:
    """The labels `[C]` that `describe_labels` had."""
    values, dtype = saved["values"], np.dtype(saved["dtype"])
    if dtype.kind in "mM":
        return np.array(values, dtype=dtype.byteorder + "i8").view(dtype)
    if dtype.kind == "S":
        values = [value.encode("latin-1") for value in values]
    return np.array(values, dtype=dtype)
