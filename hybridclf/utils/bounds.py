"""Checks of numbers that users pass: of the right kind, finite and within their bounds."""

import math
from numbers import Integral, Real
from typing import Any

from sklearn.utils import check_random_state

from ..errors import InvalidInputError

__all__ = ["check_number", "check_whole", "draw_seed", "is_whole"]


def is_whole(value: Any, lowest: int) -> bool:
    """Whether a value is a whole number, Python's or numpy's, of at least `lowest`; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def check_whole(name: str, value: Any, lowest: int) -> None:
    """Check that a value is a whole number, as `is_whole` has it.

    Raises
    ------
    InvalidInputError
        If not; the error calls the value `name`.
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
    """Check that a value is a finite real number, Python's or numpy's, within its bounds; True and False are none.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : object
        What to check.
    at_least, above, below : float
        Bounds; the value may equal the first alone.

    Raises
    ------
    InvalidInputError
        If not.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and value >= at_least and above < value < below):
        bounds = {"of at least": at_least, "above": above, "below": below}
        wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
        raise InvalidInputError(f"{name} must be a finite number {wanted}, got {value!r}")


def draw_seed(random_state: Any) -> int:
    """The seed in [0, 2**31 - 1) that a `random_state` decides.

    Raises
    ------
    InvalidInputError
        For anything but a whole number in [0, 2**32), a `numpy.random.RandomState` and None.
    """
    try:
        if not isinstance(random_state, bool):
            return int(check_random_state(random_state).randint(2**31 - 1))
    except (TypeError, ValueError):
        pass
    raise InvalidInputError(
        f"random_state must be a whole number below 2**32, a numpy.random.RandomState or None, got {random_state!r}"
    )
