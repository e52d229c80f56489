"""What a report says of figures that vary with the seed, by hand calculation."""

import pytest

from anomalib_defect_plugins.report.statistics import Measured, clearly_best, measure, pareto_front


def test_the_spread_is_the_sample_standard_deviation():
    # Deviations -0.02, 0, 0.02: their squares add up to 0.0008, divided by n - 1 = 2: 0.0004, whose root is 0.02.
    assert measure([0.90, 0.92, 0.94]) == pytest.approx((0.92, 0.02, 3))


def test_one_seed_has_no_spread_and_none_no_figure():
    assert measure([0.9]) == (0.9, None, 1)
    assert measure([]) is None


def test_equal_values_have_a_spread_of_exactly_zero():
    assert measure([0.1, 0.1, 0.1]).spread == 0


def test_a_row_is_the_best_where_the_difference_exceeds_the_interval():
    # Standard error of the difference sqrt(2 * 0.02^2 / 3) = 0.01633, 4 degrees of freedom, t = 2.776: the interval
    # reaches 0.0453 to each side (tables of Student's t).
    other = Measured(0.90, 0.02, 3)
    assert clearly_best({"a": Measured(0.946, 0.02, 3), "b": other}) == "a"
    assert clearly_best({"a": Measured(0.945, 0.02, 3), "b": other}) is None


def test_welch_counts_fewer_degrees_of_freedom_where_the_spreads_differ():
    # Parts 0.04^2 / 2 = 0.0008 and 0: as many degrees as the first row has, 1, so t = 12.706 and the interval reaches
    # 12.706 * 0.02828 = 0.3594.
    exact = Measured(0.9, 0.0, 5)
    assert clearly_best({"a": Measured(0.5405, 0.04, 2), "b": exact}) == "b"
    assert clearly_best({"a": Measured(0.5408, 0.04, 2), "b": exact}) is None


def test_the_best_must_beat_every_other_row():
    rows = {"a": Measured(0.95, 0.01, 3), "b": Measured(0.94, 0.01, 3), "c": Measured(0.5, 0.01, 3)}
    assert clearly_best(rows) is None
    assert clearly_best({name: rows[name] for name in "ac"}) == "a"


def test_beside_a_row_of_one_seed_nothing_is_the_best():
    assert clearly_best({"a": Measured(0.9, None, 1), "b": Measured(0.1, None, 1)}) is None
    assert clearly_best({"a": Measured(0.9, 0.0, 3), "b": Measured(0.1, None, 1)}) is None


def test_rows_that_never_vary_are_told_apart_and_equal_ones_are_not():
    assert clearly_best({"a": Measured(0.91, 0.0, 2), "b": Measured(0.9, 0.0, 2)}) == "a"
    assert clearly_best({"a": Measured(0.9, 0.0, 2), "b": Measured(0.9, 0.0, 2)}) is None


def test_a_row_alone_is_not_the_best():
    assert clearly_best({"a": Measured(0.9, 0.0, 3), "b": None}) is None


def test_where_less_is_better_the_least_is_the_best():
    assert clearly_best({"a": Measured(0.9, 0.01, 3), "b": Measured(0.1, 0.01, 3)}, higher=False) == "b"


def test_the_pareto_front_is_what_nothing_beats():
    # c is slower and worse than b; d is as fast as a and worse; e is as good as b and slower.
    points = {"a": (1.0, 0.7), "b": (5.0, 0.9), "c": (6.0, 0.8), "d": (1.0, 0.6), "e": (7.0, 0.9), "f": (9.0, 0.95)}
    assert pareto_front(points) == ["a", "b", "f"]


def test_equal_points_are_both_on_the_front():
    assert pareto_front({"a": (1.0, 0.7), "b": (1.0, 0.7)}) == ["a", "b"]
