"""Checks of the user's numbers: right type, finite and within bounds."""

import math
from numbers import Integral, Real
from typing import Any

from sklearn.utils import check_random_state

from ..errors import InvalidInputError

__all__ = ["check_number", "check_whole", "draw_seed", "is_whole"]


def is_whole(value: Any, lowest: int) -> bool:
    """Tell whether a value is a whole number, Python's or numpy's, of at least `lowest`; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def check_whole(name: str, value: Any, lowest: int) -> None:
    """Check that a value is a whole number by `is_whole`; the message calls it `name`.

    Raises
    ------
    InvalidInputError
        For any other value.
    """
    if not is_whole(value, lowest):
        raise InvalidInputError(f"{name} must be a whole number of at least {lowest}, got {value!r}")


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Check that a value is a finite real number, Python's or numpy's, within bounds; True and False are refused.

    Parameters
    ----------
    name : str
        Name of the value in the message.
    value : object
        Value to check.
    at_least, above, below : float
        Bounds, of which `at_least` alone may be reached.

    Raises
    ------
    InvalidInputError
        For any other value.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and value >= at_least and above < value < below):
        bounds = {"of at least": at_least, "above": above, "below": below}
        wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
        raise InvalidInputError(f"{name} must be a finite number {wanted}, got {value!r}")


def draw_seed(random_state: Any) -> int:
    """Draw a seed in [0, 2**31 - 1) from a `random_state`.

    Raises
    ------
    InvalidInputError
        For anything but a whole number in [0, 2**32), a `numpy.random.RandomState` or None.
    """
    # scikit-learn would take True for the seed 1
    try:
        if not isinstance(random_state, bool):
            return int(check_random_state(random_state).randint(2**31 - 1))
    except (TypeError, ValueError):
        pass
    raise InvalidInputError(
        f"random_state must be a whole number below 2**32, a numpy.random.RandomState or None, got {random_state!r}"
    )
