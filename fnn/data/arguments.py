"""Checks of a loader's arguments; an error has the name, the value and the allowed range."""

import math
from numbers import Integral, Real

from ..errors import DataError

MAX_SEED = 2**32 - 1


def check_integer(where: str, argument: str, value: int, low: int, high: int) -> None:
    """Raise DataError unless `value` is an integer with low <= value <= high."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
        raise DataError(f"{where}: {argument} is {value!r}; expected an integer {low} to {high}")


def check_seed(where: str, argument: str, value: int) -> None:
    """Raise DataError unless `value` can seed a random number generator."""
    check_integer(where, argument, value, 0, MAX_SEED)


def check_number(where: str, argument: str, value: float, low: float, high: float) -> None:
    """Raise DataError unless `value` is a finite number with low <= value <= high."""
    if not _is_real(value) or not low <= value <= high:
        raise DataError(f"{where}: {argument} is {value!r}; expected a number {low:g} to {high:g}")


def check_fraction(where: str, argument: str, value: float) -> None:
    """Raise DataError unless 0 < value < 1."""
    if not _is_real(value) or not 0 < value < 1:
        raise DataError(
            f"{where}: {argument} is {value!r}; expected a number above 0 and below 1, such as 0.2"
        )


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
