"""Argument checks name the argument and its value."""

import math
from collections.abc import Callable

import pytest

from anomalib_defect_plugins.core.checks import (
    check_fraction,
    check_kinds,
    check_not_negative,
    check_number,
    check_one_of,
    check_positive,
    check_range,
)
from anomalib_defect_plugins.core.errors import InvalidInputError


def test_valid_arguments_pass() -> None:
    check_positive(width=1, rate=1e-9)
    check_not_negative(width=0, rate=0.5)
    check_number("area", 1, 0, 1)
    check_range("area", (0.2, 0.2), 0, 1)
    check_one_of("mode", "b", ("a", "b"))
    check_fraction("share", 0, zero=True)
    check_fraction("share", 1, one=True)
    check_fraction("share", 0.5)


def test_kinds_are_returned_as_a_tuple() -> None:
    assert check_kinds("kinds", ["b", "a"], ("a", "b", "c")) == ("b", "a")


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (lambda: check_positive(width=1, depth=0), "depth is 0; it must be more than 0"),
        (lambda: check_positive(rate=math.nan), "rate is nan; it must be more than 0"),
        (lambda: check_positive(rate=math.inf), "rate is inf; it must be finite"),
        (lambda: check_not_negative(width=-1), "width is -1; it must be 0 or more"),
        (lambda: check_not_negative(rate=math.nan), "rate is nan; it must be 0 or more"),
        (lambda: check_not_negative(rate=math.inf), "rate is inf; it must be finite"),
        (lambda: check_number("area", 2, 0, 1), "area is 2; it must be from 0 to 1"),
        (lambda: check_number("area", math.nan, 0, 1), "area is nan; it must be from 0 to 1"),
        (lambda: check_range("area", (0.5, 0.2), 0, 1), r"area is \(0.5, 0.2\); .* from 0 to 1"),
        (lambda: check_range("area", (0.5, 2), 0, 1), r"area is \(0.5, 2\); .* from 0 to 1"),
        (lambda: check_one_of("mode", "x", ("a", "b")), "mode is 'x'; it must be one of a, b"),
        (lambda: check_kinds("kinds", [], ("a", "b")), r"kinds is \[\]; it must be a list of some of a, b"),
        (lambda: check_kinds("kinds", "a", ("a", "b")), "kinds is 'a'; it must be a list of some of a, b"),
        (lambda: check_kinds("kinds", ["a", "x"], ("a", "b")), r"kinds is \['a', 'x'\]; it must be a list"),
        (lambda: check_fraction("share", 0), r"share is 0; it must be in \(0, 1\)"),
        (lambda: check_fraction("share", 1, zero=True), r"share is 1; it must be in \[0, 1\)"),
        (lambda: check_fraction("share", 1.5, one=True), r"share is 1.5; it must be in \(0, 1\]"),
    ],
)
def test_an_invalid_argument_is_named_with_its_value(check: Callable[[], object], line: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{line}"):
        check()
