"""Labels to JSON and back, with the same dtype and the same values."""

from typing import Any

import numpy as np

from ..errors import SavedModelError

__all__ = ["describe_labels", "restore_labels"]

_PLAIN = (str, bool, int, float, type(None))


def describe_labels(labels: np.ndarray) -> dict[str, Any]:
    """Convert labels `[C]` to plain JSON values.

    Returns
    -------
    dict
        "dtype", numpy's dtype string, and "values", a list of C values.

    Raises
    ------
    SavedModelError
        For labels that JSON cannot hold without loss, such as dates in an array of objects.
    """
    values = labels.tolist()
    if labels.dtype.kind in "mM":  # datetime64 and timedelta64 as integers of their unit
        values = labels.view(labels.dtype.byteorder + "i8").tolist()
    elif labels.dtype.kind == "O":
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
    # type(), not isinstance(): a subclass of str or int would come back as its base
    strange = [value for value in values if type(value) not in _PLAIN]
    if strange or labels.dtype.kind not in "biufUmMO":
        what = type(strange[0]).__name__ if strange else str(labels.dtype)
        raise SavedModelError(f"labels of type {what} cannot be saved; fit on strings, numbers or numpy's datetime64")
    return {"dtype": labels.dtype.str, "values": values}


def restore_labels(saved: dict[str, Any]) -> np.ndarray:
    """Restore the labels `[C]` from a `describe_labels` result."""
    values, dtype = saved["values"], np.dtype(saved["dtype"])
    if dtype.kind in "mM":
        return np.array(values, dtype=dtype.byteorder + "i8").view(dtype)
    return np.array(values, dtype=dtype)
