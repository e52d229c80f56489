"""Argument checks that end in one clear line."""

import math
from collections.abc import Iterable, Sequence

from anomalib_defect_plugins.core.errors import InvalidInputError


def check_positive(**arguments: float) -> None:
    """Check that numbers are greater than 0, and finite.

    Args:
        arguments: The numbers by argument name.

    Raises:
        InvalidInputError: If one is not; names the first.
    """
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            msg = f"{name} is {value}; it must be {'finite' if value == math.inf else 'more than 0'}"
            raise InvalidInputError(msg)


def check_not_negative(**arguments: float) -> None:
    """Check that numbers are 0 or greater, and finite.

    Args:
        arguments: The numbers by argument name.

    Raises:
        InvalidInputError: If one is not; names the first.
    """
    for name, value in arguments.items():
        if not 0 <= value < math.inf:
            msg = f"{name} is {value}; it must be {'finite' if value == math.inf else '0 or more'}"
            raise InvalidInputError(msg)


def check_number(what: str, value: float, low: float, high: float) -> None:
    """Check that ``low`` <= ``value`` <= ``high``.

    Raises:
        InvalidInputError: If it is not.
    """
    if not low <= value <= high:
        msg = f"{what} is {value}; it must be from {low:g} to {high:g}"
        raise InvalidInputError(msg)


def check_range(what: str, value: tuple[float, float], low: float, high: float) -> None:
    """Check that ``value`` is an ordered pair within [``low``, ``high``].

    Raises:
        InvalidInputError: If it is not.
    """
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        msg = f"{what} is {value}; it must be the least and the greatest, from {low:g} to {high:g}"
        raise InvalidInputError(msg)


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Check that ``value`` is one of the ``known`` values.

    Raises:
        InvalidInputError: If it is not; lists the known values.
    """
    if value not in known:
        msg = f"{name} is {value!r}; it must be one of {', '.join(known)}"
        raise InvalidInputError(msg)


def check_kinds(what: str, values: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Check that ``values`` is a non-empty list of ``known`` values, and return it as a tuple.

    Raises:
        InvalidInputError: If it is empty, a single string, or has an unknown value.
    """
    if isinstance(values, str) or not values or not set(values) <= set(known):
        msg = f"{what} is {values!r}; it must be a list of some of {', '.join(known)}"
        raise InvalidInputError(msg)
    return tuple(values)


def check_fraction(name: str, value: float, zero: bool = False, one: bool = False) -> None:
    """Check that ``value`` is between 0 and 1.

    Args:
        name: Argument name.
        value: Argument value.
        zero: Whether 0 is allowed.
        one: Whether 1 is allowed.

    Raises:
        InvalidInputError: If it is not.
    """
    if not (0 < value < 1 or (zero and value == 0) or (one and value == 1)):
        msg = f"{name} is {value}; it must be in {'[' if zero else '('}0, 1{']' if one else ')'}"
        raise InvalidInputError(msg)
