"""Statistics of metrics that vary with the seed, compared with hand calculations."""

import pytest

from anomalib_defect_plugins.report.statistics import (
    CallTimes,
    MeanSpread,
    clearly_best,
    clearly_fastest,
    mean_spread,
    pareto_front,
)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    # Deviations -0.02, 0, 0.02: their squares add up to 0.0008, divided by n - 1 = 2: 0.0004, whose root is 0.02.
    assert mean_spread([0.90, 0.92, 0.94]) == pytest.approx((0.92, 0.02, 3))


def test_one_seed_has_no_spread_and_no_seed_no_mean() -> None:
    assert mean_spread([0.9]) == (0.9, None, 1)
    assert mean_spread([]) is None
    assert mean_spread([None, 0.9]) == (0.9, None, 1)


def test_equal_values_have_a_spread_of_exactly_zero() -> None:
    value = mean_spread([0.1, 0.1, 0.1])
    assert value is not None
    assert value.spread == 0


def test_a_row_is_the_best_if_the_difference_exceeds_the_interval() -> None:
    # Standard error of the difference sqrt(2 * 0.02^2 / 3) = 0.01633, 4 degrees of freedom, t = 2.776: the interval
    # reaches 0.0453 to each side (tables of Student's t).
    other = MeanSpread(0.90, 0.02, 3)
    assert clearly_best({"a": MeanSpread(0.946, 0.02, 3), "b": other}) == "a"
    assert clearly_best({"a": MeanSpread(0.945, 0.02, 3), "b": other}) is None


def test_welch_has_fewer_degrees_of_freedom_if_the_spreads_differ() -> None:
    # Parts 0.04^2 / 2 = 0.0008 and 0: the degrees of freedom are those of the first row, 1, so t = 12.706 and the
    # interval reaches 12.706 * 0.02828 = 0.3594.
    exact = MeanSpread(0.9, 0.0, 5)
    assert clearly_best({"a": MeanSpread(0.5405, 0.04, 2), "b": exact}) == "b"
    assert clearly_best({"a": MeanSpread(0.5408, 0.04, 2), "b": exact}) is None


def test_the_best_must_beat_every_other_row() -> None:
    rows = {"a": MeanSpread(0.95, 0.01, 3), "b": MeanSpread(0.94, 0.01, 3), "c": MeanSpread(0.5, 0.01, 3)}
    assert clearly_best(rows) is None
    assert clearly_best({name: rows[name] for name in "ac"}) == "a"


def test_compared_with_a_row_of_one_seed_no_row_is_the_best() -> None:
    assert clearly_best({"a": MeanSpread(0.9, None, 1), "b": MeanSpread(0.1, None, 1)}) is None
    assert clearly_best({"a": MeanSpread(0.9, 0.0, 3), "b": MeanSpread(0.1, None, 1)}) is None


def test_without_any_spread_every_difference_counts() -> None:
    assert clearly_best({"a": MeanSpread(0.91, 0.0, 2), "b": MeanSpread(0.9, 0.0, 2)}) == "a"
    assert clearly_best({"a": MeanSpread(0.9, 0.0, 2), "b": MeanSpread(0.9, 0.0, 2)}) is None


def test_a_single_row_is_not_the_best() -> None:
    assert clearly_best({"a": MeanSpread(0.9, 0.0, 3), "b": None}) is None


def test_if_lower_is_better_the_lowest_is_the_best() -> None:
    assert clearly_best({"a": MeanSpread(0.9, 0.01, 3), "b": MeanSpread(0.1, 0.01, 3)}, higher=False) == "b"


def test_the_pareto_front_has_the_points_that_no_other_dominates() -> None:
    # c is slower and worse than b; d is as fast as a and worse; e is as good as b and slower.
    points = {"a": (1.0, 0.7), "b": (5.0, 0.9), "c": (6.0, 0.8), "d": (1.0, 0.6), "e": (7.0, 0.9), "f": (9.0, 0.95)}
    exact = {name: (CallTimes(time, time, time), accuracy) for name, (time, accuracy) in points.items()}
    assert pareto_front(exact) == ["a", "b", "f"]


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front({name: (CallTimes(1, 1, 1), 0.7) for name in "ab"}) == ["a", "b"]


def test_a_difference_of_times_within_their_spread_puts_nothing_on_the_front() -> None:
    fast, slow = CallTimes(5.0, 4.8, 5.6), CallTimes(5.5, 5.4, 6.0)
    assert pareto_front({"a": (fast, 0.8), "b": (slow, 0.9)}) == ["b"]
    assert pareto_front({"a": (fast._replace(high=5.3), 0.8), "b": (slow, 0.9)}) == ["a", "b"]


def test_the_fastest_is_named_only_if_its_slow_calls_are_faster_than_typical_ones_of_all_others() -> None:
    times = {"a": CallTimes(5.0, 4.8, 5.3), "b": CallTimes(5.5, 5.4, 6.0), "c": CallTimes(9.0, 8.0, 9.9)}
    assert clearly_fastest(times) == "a"
    assert clearly_fastest({**times, "b": CallTimes(5.5, 5.2, 6.0)}) is None
    assert clearly_fastest({"a": times["a"]}) is None
